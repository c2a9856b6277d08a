/** The tools that an answer calls: their arguments, and a field for the result of one that nobody has given yet. */

import { h } from '../element.js';
import { codeBlock } from '../markdown/code_block.js';
import { t } from '../shell/language.js';

/** Show the calls of `message`; results are asked for while it is the last answer and complete. */
export function toolCalls(session, message, isLast) {
  const open = session.running || !isLast() ? [] : session.openToolCalls();
  return message.tool_calls.filter(Boolean).map((call) =>
    h(
      'section',
      { class: 'tool-call' },
      h('h3', {}, t('tool.call', { name: call.function.name })),
      codeBlock(readable(call.function.arguments), 'json'),
      open.includes(call) && resultForm(session, call),
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
