/** Conversations as a file: out of this browser and into another. */

import { newConversation, readConversation } from './conversation.js';
import { conversation, save } from './store.js';

const FORMAT = 'fulmen.conversations';

/** Return the text of a file with `conversations`. */
export const exported = (conversations) => JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 2);

/** Let the browser save a text as a file. */
export function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  const link = document.createElement('a');
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/**
 * Keep what a file holds. One that is here already and differs is kept beside the other.
 * @returns {number|null} how many conversations were taken; null: it is no such file
 */
export function importFrom(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    return null;
  }
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) return null;
  const read = file.conversations.map(readConversation);
  if (read.includes(null)) return null;
  for (const one of read) {
    const present = conversation(one.id);
    if (present !== null && JSON.stringify(present) !== JSON.stringify(one)) one.id = newConversation().id;
    save(one);
  }
  return read.length;
}
