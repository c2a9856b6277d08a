/** One message of a conversation: how it looks, and what can be done with it. */

import { h } from '../element.js';
import { icon } from '../icons.js';
import { showMarkdown } from '../markdown/render.js';
import { copyButton } from '../shell/clipboard.js';
import { number, seconds, t, tOr } from '../shell/language.js';
import { serverTools, toolCalls } from './tool_calls.js';

/**
 * Show the message at `index` of a session.
 * @returns {{message: Object, element: HTMLElement, grow: () => void}} `grow` shows what has come since
 */
export function messageView(session, index) {
  const message = session.messages[index];
  if (message.role === 'user') return { message, element: userMessage(session, index, message), grow: () => {} };
  if (message.role === 'tool') return { message, element: toolResult(message), grow: () => {} };
  return answerView(session, index, message);
}

function button(name, label, onclick) {
  return h('button', { type: 'button', class: 'quiet', 'aria-label': label, title: label, onclick }, icon(name));
}

function userMessage(session, index, message) {
  const element = h('li', { class: 'message user' });
  const show = () => {
    const edit = button('edit', t('edit'), () => element.replaceChildren(editor(session, index, message, show)));
    element.replaceChildren(
      h('h2', { class: 'visually-hidden' }, t('you')),
      h('div', { class: 'bubble' }, message.content),
      h('div', { class: 'actions' }, edit, copyButton(() => message.content)),
    );
  };
  show();
  return element;
}

function editor(session, index, message, leave) {
  const field = h('textarea', { 'aria-label': t('edit'), value: message.content, rows: 3 });
  const send = () => { if (field.value.trim()) session.resend(index, field.value.trim()); };
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      event.stopPropagation();
      leave();
    } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  queueMicrotask(() => field.focus());
  return h(
    'div',
    { class: 'editor' },
    field,
    h(
      'div',
      { class: 'row end' },
      h('button', { type: 'button', onclick: leave }, t('cancel')),
      h('button', { type: 'button', class: 'primary', onclick: send }, t('resend')),
    ),
  );
}

function toolResult(message) {
  return h(
    'li',
    { class: 'message tool' },
    h('details', { class: 'fold' }, h('summary', {}, t('tool.result')), h('pre', { tabindex: 0 }, message.content)),
  );
}

function answerView(session, index, message) {
  const isLast = () => index === session.messages.length - 1;
  const running = () => session.running !== null && isLast();
  const reasoning = h('div', { class: 'reasoning-text' });
  const fold = h('details', { class: 'fold reasoning', hidden: true }, h('summary', {}), reasoning);
  const text = h('div', { class: 'prose' });
  const runs = h('div', {});
  const calls = h('div', {});
  const foot = h('div', { class: 'foot' });
  const element = h(
    'li',
    { class: 'message assistant' },
    h('h2', { class: 'visually-hidden' }, message.about.model || t('assistant')),
    fold, runs, text, calls, foot,
  );
  const grow = () => {
    fold.hidden = !message.reasoning_content;
    if (message.reasoning_content) {
      const thinking = running() && !message.content;
      fold.firstChild.textContent = thinking ? t('reasoning.now') : t('reasoning');
      reasoning.textContent = message.reasoning_content;
    }
    showMarkdown(text, message.content);
    if (message.server_tools) runs.replaceChildren(...serverTools(message, runs));
    if (message.tool_calls) calls.replaceChildren(...toolCalls(session, message));
    element.classList.toggle('waiting', running() && isEmpty(message));
    element.classList.toggle('writing', running());
    foot.replaceChildren(...(running() ? [] : footer(session, index, message)));
  };
  grow();
  return { message, element, grow };
}

const isEmpty = (message) => !(message.content || message.reasoning_content || message.tool_calls || message.server_tools);

function footer(session, index, message) {
  const { about } = message;
  const end = about.error ? h('p', { class: 'fault', role: 'alert' }, about.error) : ending(about.end);
  return [
    end ?? '',
    h(
      'div',
      { class: 'actions' },
      copyButton(() => message.content),
      button('again', t('again'), () => session.again(index)),
      h('span', { class: 'figures' }, figures(about)),
    ),
  ];
}

/** Say how an answer ended, if not by itself. */
function ending(end) {
  if (!end || ['stop', 'tool_calls'].includes(end)) return null;
  return h('p', { class: `ending ${end === 'content_filter' ? 'guarded' : ''}` }, tOr(`end.${end}`, end));
}

function figures({ usage, first, seconds: whole }) {
  const parts = [];
  if (usage) parts.push(t('figures.tokens', { count: number(usage.completion_tokens) }));
  if (usage && whole > first && usage.completion_tokens > 1) {
    parts.push(t('figures.rate', { rate: number((usage.completion_tokens - 1) / (whole - first), 1) }));
  }
  if (first !== undefined) parts.push(t('figures.first', { time: seconds(first) }));
  return parts.join(' · ');
}
