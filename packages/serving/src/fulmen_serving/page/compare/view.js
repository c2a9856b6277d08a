/** Two models side by side: the same message to both. */

import { composer } from '../chat/composer.js';
import { parametersForm } from '../chat/parameters.js';
import { h } from '../element.js';
import { icon } from '../icons.js';
import { t } from '../shell/language.js';
import { newSide, pane } from './pane.js';

const sides = [newSide('left'), newSide('right')]; // they go on while another view is shown

/**
 * Show them.
 * @param {Object} options
 * @param {AbortSignal} options.left when the view is left
 */
export function compareView({ left }) {
  const sessions = sides.map((side) => side.session);
  const [first, second] = sessions.map((session) => session.conversation);
  second.parameters = first.parameters; // one form for both
  second.system = first.system;
  const running = () => sessions.some((session) => session.running !== null);
  const writer = composer({
    running,
    send: (text) => { for (const session of sessions) if (session.conversation.model) session.send(text); },
    stop: () => { for (const session of sessions) session.stop(); },
  });
  for (const session of sessions) session.addEventListener('change', writer.update, { signal: left });
  const panel = h('details', { class: 'parameters-fold' }, h('summary', {}, t('parameters')), parametersForm(first, () => { second.system = first.system; }));
  const clear = h(
    'button',
    {
      type: 'button', class: 'quiet', 'aria-label': t('compare.clear'), title: t('compare.clear'),
      onclick: async () => {
        for (const session of sessions) {
          await session.stop();
          session.messages.length = 0;
          session.dispatchEvent(new Event('change'));
        }
        writer.field.focus();
      },
    },
    icon('trash'),
  );
  return h(
    'div',
    { class: 'chat compare' },
    h('header', { class: 'view-head' }, h('h1', { tabindex: -1 }, t('compare.title')), panel, clear),
    h('div', { class: 'panes' }, sides.map((side) => pane(side, left, writer.update))),
    writer.element,
  );
}
