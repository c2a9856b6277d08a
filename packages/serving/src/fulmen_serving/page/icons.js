/** The icons, as paths in a box of 24 by 24, drawn with the colour of the text. */

import { svg } from './element.js';

const PATHS = {
  bolt: 'M13 2 4 14h6l-1 8 9-12h-6l1-8z',
  chat: 'M4 5h16v11H9l-5 4V5z',
  compare: 'M4 5h7v14H4zM13 5h7v14h-7z',
  engine: 'M3 17l5-6 4 3 5-8 4 5M3 21h18',
  raise: 'M12 3l8 3v6c0 5-3.5 8-8 9-4.5-1-8-4-8-9V6l8-3zM9 12l2 2 4-4',
  keys: 'M15.5 4a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM12.3 11.7 4 20M7 17l2.5 2.5M10 14l2 2',
  plus: 'M12 5v14M5 12h14',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  done: 'M5 12l5 5 9-10',
  edit: 'M4 20h4L19 9l-4-4L4 16v4zM13 7l4 4',
  again: 'M20 11a8 8 0 1 0-2.3 6M20 5v6h-6',
  sliders: 'M4 7h8M18 7h2M4 17h2M12 17h8M15 4.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM9 14.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z',
  menu: 'M4 7h16M4 12h16M4 17h16',
  close: 'M6 6l12 12M18 6L6 18',
  trash: 'M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5',
  export: 'M12 15V4M8 8l4-4 4 4M5 14v6h14v-6',
  import: 'M12 4v11M8 11l4 4 4-4M5 14v6h14v-6',
  light: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5',
  dark: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z',
  auto: 'M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 4v16M15 5v14M18 7v10',
  help: 'M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5v.5',
  down: 'M12 5v14M6 13l6 6 6-6',
};

/** An icon that says nothing to a screen reader: the button around it has a name. */
export function icon(name) {
  return svg(
    'svg',
    { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true', focusable: 'false' },
    svg('path', { d: PATHS[name] }),
  );
}
