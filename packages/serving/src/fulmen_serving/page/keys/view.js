/** Keys, quotas and usage, for whoever holds the admin key. */

import { h } from '../element.js';
import { admin } from '../server/here.js';
import { t } from '../shell/language.js';
import { adminNotice } from './admin_notice.js';
import { makeKey } from './new_key.js';
import { keyTable, organisationTable } from './tables.js';
import { usageSection } from './usage.js';

/**
 * Show it.
 * @param {Object} options
 * @param {AbortSignal} options.left when the view is left
 */
export function keysView({ left }) {
  const body = h('div', { class: 'view-body' });
  const keys = h('section', { class: 'block' });
  const usage = usageSection(left);
  const refresh = async () => {
    const found = (await admin.json('admin/v1/keys', { signal: left })).data;
    keys.replaceChildren(
      h('div', { class: 'row' }, h('h2', { class: 'grow' }, t('keys.title')), h('button', { type: 'button', class: 'primary', onclick: () => makeKey(refresh) }, t('keys.new'))),
      found.length ? keyTable(found, refresh) : h('p', { class: 'nothing' }, t('keys.none')),
      organisationTable(found, refresh),
    );
  };
  const show = async () => {
    try {
      await refresh();
      body.replaceChildren(keys, usage.element);
      await usage.refresh();
    } catch (error) {
      if (!left.aborted) body.replaceChildren(adminNotice(error, t('keys.needs'), show));
    }
  };
  show();
  return h('div', { class: 'figures-view' }, h('header', { class: 'view-head' }, h('h1', { tabindex: -1 }, t('view.keys'))), body);
}
