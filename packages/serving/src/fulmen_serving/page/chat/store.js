/** The conversations that this browser keeps, each under a name of its own. */

import { keep } from '../shell/storage.js';
import { readConversation } from './conversation.js';

const PREFIX = 'fulmen.conversation.';

/** Tells listeners (event "change") that the list, a title or an order is another. */
export const store = new EventTarget();

const changed = () => store.dispatchEvent(new Event('change'));

/** Return all conversations, the last used first. */
export function conversations() {
  const found = [];
  try {
    for (let index = 0; index < localStorage.length; index += 1) {
      const name = localStorage.key(index);
      if (name.startsWith(PREFIX)) found.push(parsed(localStorage.getItem(name)));
    }
  } catch { /* nothing is kept */ }
  return found.filter((one) => one !== null).sort((a, b) => b.updated - a.updated);
}

/** Return the conversation with that id, or null. */
export function conversation(id) {
  try {
    return parsed(localStorage.getItem(PREFIX + id));
  } catch {
    return null;
  }
}

/** Keep a conversation. Returns whether the browser did. */
export function save(one) {
  const done = keep(PREFIX + one.id, JSON.stringify(one));
  changed();
  return done;
}

/** Forget a conversation. */
export function remove(id) {
  keep(PREFIX + id, '');
  changed();
}

function parsed(text) {
  try {
    return text === null ? null : readConversation(JSON.parse(text));
  } catch {
    return null;
  }
}
