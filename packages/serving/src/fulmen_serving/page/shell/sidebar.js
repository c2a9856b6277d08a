/** Beside every view: where one can go, the conversations, language and brightness. A drawer where there is no room. */

import { conversationList } from '../chat/list.js';
import { h } from '../element.js';
import { icon } from '../icons.js';
import { forgetKeys, hasKeys } from '../server/here.js';
import { say } from './announcer.js';
import { LANGUAGES, language, t } from './language.js';
import { showShortcuts } from './shortcuts.js';
import { nextTheme, theme } from './theme.js';

/**
 * Make it.
 * @param {Object} options
 * @param {string[]} options.views their names, in order
 * @param {AbortSignal} options.left when it is replaced
 * @param {(code: string) => void} options.changeLanguage
 * @returns {{element: HTMLElement, select: (view: string) => void, toggle: () => void}}
 */
export function sidebar({ views, left, changeLanguage }) {
  const links = new Map(
    views.map((name) => [name, h('a', { href: `#/${name}${name === 'chat' ? '/' : ''}` }, icon(name), t(`view.${name}`))]),
  );
  const element = h(
    'header',
    { class: 'sidebar', id: 'sidebar' },
    h('a', { href: '#/chat/', class: 'brand' }, icon('bolt'), 'Fulmen'),
    h('nav', { 'aria-label': t('views') }, h('ul', {}, [...links.values()].map((link) => h('li', {}, link)))),
    h('a', { href: '#/chat/', class: 'button new-chat', title: 'Alt+N' }, icon('plus'), t('chat.new')),
    conversationList(left),
    settings(changeLanguage),
  );

  const narrow = matchMedia('(max-width: 50rem)');
  const setOpen = (open) => {
    element.classList.toggle('open', open);
    element.inert = narrow.matches && !open;
    const beside = document.querySelector('.beside');
    if (beside) beside.querySelector('#main').inert = narrow.matches && open;
    document.getElementById('menu')?.setAttribute('aria-expanded', String(open));
  };
  const toggle = () => {
    const open = !element.classList.contains('open');
    setOpen(open);
    if (open) element.querySelector('a').focus();
  };
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !element.classList.contains('open') || document.querySelector('dialog[open]')) return;
    setOpen(false);
    document.getElementById('menu').focus();
  }, { signal: left });
  narrow.addEventListener('change', () => setOpen(false), { signal: left });
  document.addEventListener('click', (event) => {
    if (element.classList.contains('open') && !event.target.closest('#sidebar, #menu, dialog')) setOpen(false);
  }, { signal: left });
  setOpen(false);

  const select = (name) => {
    for (const [other, link] of links) {
      if (other === name) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    setOpen(false);
  };
  return { element, select, toggle };
}

function settings(changeLanguage) {
  const choice = h(
    'select',
    { id: 'language', 'aria-label': t('language'), onchange: () => changeLanguage(choice.value) },
    Object.entries(LANGUAGES).map(([code, name]) => h('option', { value: code, lang: code }, name)),
  );
  choice.value = language();
  const brightness = h('button', { type: 'button', class: 'quiet', id: 'theme', onclick: () => { nextTheme(); show(); } });
  const show = () => {
    const label = t(`theme.${theme()}`);
    brightness.replaceChildren(icon(theme()));
    brightness.setAttribute('aria-label', label);
    brightness.title = label;
  };
  show();
  const forget = h(
    'button',
    { type: 'button', class: 'quiet', 'aria-label': t('key.forget'), title: t('key.forget'), onclick: () => { forgetKeys(); say(t('key.forgotten')); } },
    icon('keys'),
  );
  const help = h('button', { type: 'button', class: 'quiet', 'aria-label': t('shortcuts'), title: `${t('shortcuts')} (?)`, onclick: showShortcuts }, icon('help'));
  return h('div', { class: 'settings' }, choice, h('span', { class: 'grow' }), hasKeys() && forget, brightness, help);
}
