/** Short messages, shown for a while and read aloud by a screen reader; one may be taken back with its button. */

import { h } from '../element.js';

const SHOWN = 7000;
let timer = 0;

/**
 * Say something.
 * @param {string} message
 * @param {{label: string, act: () => void}} [action]
 */
export function say(message, action) {
  const place = document.getElementById('announcer');
  const clear = () => place.replaceChildren();
  clearTimeout(timer);
  const button = action && h('button', { type: 'button', onclick: () => { clear(); action.act(); } }, action.label);
  place.replaceChildren(h('div', { class: 'toast' }, h('span', {}, message), button));
  timer = setTimeout(clear, SHOWN);
}
