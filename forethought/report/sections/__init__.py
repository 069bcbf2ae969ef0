"""The sections of the page, one module each; `page.SECTIONS` lists them."""
