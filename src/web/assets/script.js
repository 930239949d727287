// Nothing here is needed: it copies, counts and waits, where the page would be clicked or loaded again.
'use strict';

for (const button of document.querySelectorAll('[data-copy]')) {
  const from = document.getElementById(button.dataset.copy);
  if (!navigator.clipboard || !from) continue;
  button.hidden = false;
  const words = button.firstChild;
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(from.value ?? from.textContent);
    words.textContent = 'Copied';
    setTimeout(() => { words.textContent = 'Copy'; }, 2000);
  });
}

const form = document.querySelector('form[data-scopes]');
if (form) {
  const boxes = [...form.querySelectorAll('.chosen input')];
  const tools = [...form.querySelectorAll('[data-scope]')];
  const show = (changed) => {
    const reach = form.elements.reach;
    if (changed?.target.type === 'checkbox') reach.value = 'chosen';
    if (reach.value !== 'chosen') {
      for (const box of boxes) box.checked = reach.value === 'all' || 'read' in box.dataset;
    }
    const may = new Set(boxes.filter((box) => box.checked).map((box) => box.name));
    let count = 0;
    let cost = 0;
    for (const tool of tools) {
      const seen = may.has(tool.dataset.scope);
      tool.classList.toggle('off', !seen);
      if (seen) {
        count += 1;
        cost += Number(tool.dataset.cost);
      }
    }
    form.querySelector('[data-count]').textContent = count;
    form.querySelector('[data-cost]').textContent = cost;
  };
  form.addEventListener('change', show);
  show();
}

const waiting = document.querySelector('p[data-seen]');
if (waiting) {
  let looks = 300;
  const look = async () => {
    try {
      const answer = await fetch(waiting.dataset.seen);
      if (!answer.ok || answer.redirected) return;
      const { seen, client } = await answer.json();
      if (seen) {
        waiting.textContent = client ? `Connected: ${client}` : 'Connected.';
        return;
      }
    } catch {
      // The server is away for a moment.
    }
    looks -= 1;
    if (looks > 0) setTimeout(look, 2000);
  };
  setTimeout(look, 2000);
}

const live = document.querySelector('[data-live]');
if (live) {
  const events = new EventSource(live.dataset.live);
  events.addEventListener('progress', (event) => { live.textContent = event.data; });
  events.addEventListener('done', () => { events.close(); location.reload(); });
}
