// Adds a bearer token to every request, since the conformance suite cannot send one.
// usage: node proxy.mjs TARGET_URL TOKEN; prints the port it listens on, on loopback.
// Everything else passes as it came: header case, Host, Origin, status, and every byte at once. A client that hangs
// up takes its request to the target with it, since that is how MCP cancels.
import http from 'node:http';

const [target, token] = [new URL(process.argv[2]), process.argv[3]];

const server = http.createServer((request, response) => {
  const upstream = http.request({
    host: target.hostname,
    port: target.port || 80,
    method: request.method,
    path: request.url,
    headers: [...request.rawHeaders, 'Authorization', `Bearer ${token}`],
    agent: false,
  });
  upstream.on('response', (answer) => {
    response.writeHead(answer.statusCode, answer.statusMessage, answer.rawHeaders);
    response.flushHeaders();
    answer.pipe(response);
  });
  upstream.on('error', () => response.destroy());
  response.on('close', () => upstream.destroy());
  request.pipe(upstream);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
