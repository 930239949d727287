//! The Model Context Protocol over HTTP, both eras, free of the product.
