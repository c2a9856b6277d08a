// Before the first paint: the chosen brightness, so that a dark page never flashes. A classic script, for it must not wait.
try {
  const theme = localStorage.getItem('fulmen.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch { /* nothing is kept: the system's choice */ }
