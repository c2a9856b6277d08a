/** Why an administrator's view is empty, and what would fill it. */

import { h } from '../element.js';
import { t } from '../shell/language.js';

/**
 * Make it.
 * @param {ServerError} error what the server answered
 * @param {string} absent what to say if the server has no such route
 * @param {() => void} again asks once more
 */
export function adminNotice(error, absent, again) {
  const [title, text] = error.status === 404 ? [t('admin.absent'), absent] : [t('admin.refused'), error.message];
  const button = h('button', { type: 'button', onclick: again }, error.status === 401 || error.status === 403 ? t('admin.enter') : t('admin.again'));
  return h('div', { class: 'nothing' }, h('h2', {}, title), h('p', {}, text), error.status !== 404 && button);
}
