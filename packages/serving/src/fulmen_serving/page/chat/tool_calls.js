/** The tools that an answer calls: their arguments, and a field for the result of one that nobody has given yet. */

import { h } from '../element.js';
import { codeBlock } from '../markdown/code_block.js';
import { t } from '../shell/language.js';

const STATES = ['running', 'ok', 'error', 'withheld'];

/** Show the calls of `message`, with a form for the result of each that the session waits for. */
export function toolCalls(session, message) {
  const open = session.running ? [] : session.openToolCalls();
  return message.tool_calls.filter(Boolean).map((call) =>
    h(
      'section',
      { class: 'tool-call' },
      h('h3', {}, t('tool.call', { name: call.function.name })),
      codeBlock(readable(call.function.arguments), 'json'),
      open.includes(call) && resultForm(session, call),
    ));
}

/** Show the tools that the server ran for `message`, each folded; what is unfolded in `place` stays so. */
export function serverTools(message, place) {
  const open = new Set([...place.querySelectorAll('details[open]')].map((details) => details.dataset.call));
  return message.server_tools.map((run) =>
    h(
      'details',
      { class: 'fold', data: { call: run.id }, open: open.has(run.id) },
      h('summary', {}, t(`tool.run.${STATES.includes(run.status) ? run.status : 'ok'}`, { name: run.name })),
      codeBlock(readable(run.arguments ?? ''), 'json'),
      run.content && h('pre', { tabindex: 0 }, run.content),
    ));
}

/** JSON with line breaks, once it is whole. */
function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function resultForm(session, call) {
  const field = h('textarea', { rows: 2, class: 'code', 'aria-label': t('tool.result.for', { name: call.function.name }), placeholder: t('tool.result') });
  const give = (event) => {
    event.preventDefault();
    session.giveToolResult(call.id, field.value);
  };
  return h('form', { class: 'stack', onsubmit: give }, field, h('div', { class: 'row end' }, h('button', { type: 'submit' }, t('tool.give'))));
}
