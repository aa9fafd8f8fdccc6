// cq's own pages, made live: the theme, the pill, and patches of what is marked data-live.
