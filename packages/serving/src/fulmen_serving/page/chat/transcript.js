/** The messages of a session, growing as its answer does. */

import { h } from '../element.js';
import { t } from '../shell/language.js';
import { messageView } from './message.js';

const NEAR = 80; // pixels from the end within which the view follows it

/**
 * Show a session's messages.
 * @param {AbortSignal} left when the view is left
 * @returns {HTMLElement} a scrolling element; it has the class "empty" while there is no message
 */
export function transcript(session, left, emptyState) {
  const list = h('ol', { class: 'messages' });
  const status = h('p', { class: 'visually-hidden', role: 'status' });
  const place = h('div', { class: 'transcript', tabindex: 0, role: 'group', 'aria-label': t('transcript') }, emptyState, list, status);
  let views = [];
  let frame = 0;

  const follow = () => { place.scrollTop = place.scrollHeight; };
  const atEnd = () => place.scrollHeight - place.scrollTop - place.clientHeight < NEAR;
  const rebuild = () => {
    const following = atEnd() || views.length < session.messages.length;
    // what is there stays, with what is selected, unfolded or written in it
    const shown = views;
    views = session.messages.map((message, index) => (shown[index]?.message === message ? shown[index] : messageView(session, index)));
    for (const view of shown) if (!views.includes(view)) view.element.remove();
    for (const view of views) {
      if (shown.includes(view)) view.grow();
      else list.append(view.element);
    }
    place.classList.toggle('empty', views.length === 0);
    list.setAttribute('aria-busy', String(session.running !== null));
    status.textContent = session.running ? t('answer.begun') : views.length ? t('answer.ended') : '';
    if (following) follow();
  };
  const grow = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      const following = atEnd();
      views.at(-1)?.grow();
      if (following) follow();
    });
  };
  session.addEventListener('change', rebuild, { signal: left });
  session.addEventListener('grow', grow, { signal: left });
  rebuild();
  queueMicrotask(follow);
  return place;
}
