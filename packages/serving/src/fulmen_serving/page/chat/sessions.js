/** The sessions that were opened since the page was loaded: an answer goes on while another conversation is shown. */

import { here } from '../server/here.js';
import { say } from '../shell/announcer.js';
import { t } from '../shell/language.js';
import { newConversation } from './conversation.js';
import { ChatSession } from './session.js';
import { conversation, save } from './store.js';

const opened = new Map();
let warned = false;

/** Return the session of a conversation, a new one if there is none with that id. */
export function sessionOf(id, settings) {
  let session = opened.get(id);
  if (session === undefined) {
    const one = conversation(id) ?? newConversation(settings);
    session = opened.get(one.id) ?? new ChatSession(one, here, keep);
    opened.set(one.id, session);
  }
  return session;
}

/** Forget the session of a conversation that is deleted. */
export function closeSession(id) {
  const session = opened.get(id);
  if (session) session.saveAs = () => {};
  session?.running?.abort();
  opened.delete(id);
}

function keep(one) {
  if (one.messages.length === 0) return; // nothing was said yet
  if (!save(one) && !warned) {
    warned = true;
    say(t('not.kept'));
  }
}
