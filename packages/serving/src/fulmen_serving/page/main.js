/** The page: a sidebar and the view that the address names, in the user's language. */

import { chatView } from './chat/view.js';
import { compareView } from './compare/view.js';
import { h } from './element.js';
import { engineView } from './engine/view.js';
import { icon } from './icons.js';
import { keysView } from './keys/view.js';
import { raiseView } from './raise/view.js';
import { preferredLanguage, t, useLanguage } from './shell/language.js';
import { installShortcuts } from './shell/shortcuts.js';
import { sidebar } from './shell/sidebar.js';

/** Views by the first part of the address, e.g. #/chat/ID; each makes an element of {rest, left}. */
const VIEWS = { chat: chatView, compare: compareView, engine: engineView, raise: raiseView, keys: keysView };

const page = document.getElementById('page');
let side = null;
let place = null;
let leaving = { sidebar: new AbortController(), view: new AbortController() };

function route() {
  const [, name, rest = ''] = location.hash.split('/');
  return name in VIEWS ? { name, rest } : { name: 'chat', rest: '' };
}

function showView({ focus = true } = {}) {
  const { name, rest } = route();
  leaving.view.abort();
  leaving.view = new AbortController();
  side.select(name);
  const view = VIEWS[name]({ rest, left: leaving.view.signal });
  place.replaceChildren(view);
  document.title = name === 'chat' ? 'Fulmen' : `${t(`view.${name}`)} · Fulmen`;
  if (focus) view.querySelector('h1')?.focus({ preventScroll: true });
}

/** Make everything anew: at the start, and when the language changes. */
function showPage() {
  leaving.sidebar.abort();
  leaving.sidebar = new AbortController();
  side = sidebar({ views: Object.keys(VIEWS), left: leaving.sidebar.signal, changeLanguage });
  place = h('main', { id: 'main', tabindex: -1 });
  const skip = h('a', { class: 'skip', href: '#main', onclick: (event) => { event.preventDefault(); place.focus(); } }, t('skip'));
  const bar = h(
    'nav',
    { class: 'top-bar', 'aria-label': t('menu') },
    h('button', { type: 'button', class: 'quiet', 'aria-label': t('menu'), 'aria-expanded': 'false', id: 'menu', onclick: side.toggle }, icon('menu')),
    h('a', { href: '#/chat/', class: 'brand' }, icon('bolt'), 'Fulmen'),
  );
  page.replaceChildren(skip, side.element, h('div', { class: 'beside' }, bar, place));
  showView({ focus: false });
}

async function changeLanguage(code) {
  await useLanguage(code);
  showPage();
  document.getElementById('language').focus();
}

await useLanguage(preferredLanguage());
showPage();
addEventListener('hashchange', () => showView());
installShortcuts(Object.keys(VIEWS));
