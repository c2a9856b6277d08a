/** The keys there are, and their organisations. */

import { h } from '../element.js';
import { admin } from '../server/here.js';
import { say } from '../shell/announcer.js';
import { openDialog } from '../shell/dialog.js';
import { day, moment, number, t } from '../shell/language.js';
import { dataTable } from '../shell/table.js';

const time = (text, write) => (text === null ? '–' : h('time', { datetime: text, title: text }, write(Date.parse(text))));

/** The keys, each with a button that revokes it; `refresh` after one was revoked. */
export function keyTable(keys, refresh) {
  const columns = ['name', 'organisation', 'prefix', 'state', 'limits', 'expires', 'used'].map((name) => ({ title: t(`keys.${name}`) }));
  const rows = keys.map((key) => [
    key.name,
    key.organisation,
    h('code', {}, `${key.prefix}…`),
    h('span', { class: `badge ${key.state}` }, t(`keys.state.${key.state}`)),
    limits(key),
    time(key.expires, day),
    time(key.last_used, moment),
    key.state === 'active' && h('button', { type: 'button', class: 'danger', 'aria-label': t('keys.revoke.it', { name: key.name }), onclick: () => revoke(key, refresh) }, t('keys.revoke')),
  ]);
  return dataTable(t('keys.title'), [...columns, { title: h('span', { class: 'visually-hidden' }, t('keys.actions')) }], rows);
}

function limits(key) {
  const parts = ['requests_per_minute', 'tokens_per_minute', 'max_concurrent'].filter((name) => key[name] !== null);
  return parts.length ? parts.map((name) => h('div', {}, t(`keys.limit.${name}`, { count: number(key[name]) }))) : '–';
}

async function revoke(key, refresh) {
  const sure = await openDialog(t('keys.revoke.it', { name: key.name }), (close) => [
    h('p', {}, t('keys.revoke.sure')),
    h('div', { class: 'row end' }, h('button', { type: 'button', onclick: () => close(false) }, t('cancel')), h('button', { type: 'button', class: 'danger', onclick: () => close(true) }, t('keys.revoke'))),
  ]);
  if (sure) await attempt(() => admin.json(`admin/v1/keys/${encodeURIComponent(key.id)}/revoke`, { method: 'POST' }), refresh);
}

/** The quotas of the organisations that have keys. */
export function organisationTable(keys, refresh) {
  const quotas = new Map(keys.map((key) => [key.organisation, key.organisation_tokens_per_month]));
  if (!quotas.size) return '';
  const columns = [{ title: t('keys.organisation') }, { title: t('keys.quota'), number: true }, { title: h('span', { class: 'visually-hidden' }, t('keys.actions')) }];
  const rows = [...quotas].map(([name, quota]) => [
    name,
    quota === null ? t('keys.quota.none') : number(quota),
    h('button', { type: 'button', 'aria-label': t('keys.quota.set.of', { name }), onclick: () => setQuota(name, quota, refresh) }, t('keys.quota.set')),
  ]);
  return h('div', { class: 'block narrow' }, h('h3', {}, t('keys.quotas')), dataTable(t('keys.quotas'), columns, rows));
}

async function setQuota(name, quota, refresh) {
  const given = await openDialog(t('keys.quota.set.of', { name }), (close) => {
    const field = h('input', { id: 'quota', type: 'number', min: 0, step: 1, value: quota ?? '', autofocus: true });
    return [
      h(
        'form',
        { class: 'stack', onsubmit: (event) => { event.preventDefault(); close(field.value); } },
        h('label', { for: 'quota' }, t('keys.quota')),
        field,
        h('p', { class: 'hint' }, t('keys.quota.empty')),
        h('div', { class: 'row end' }, h('button', { type: 'submit', class: 'primary' }, t('keys.quota.set'))),
      ),
    ];
  });
  if (given === null) return;
  const body = { tokens_per_month: given === '' ? null : Number(given) };
  await attempt(() => admin.json(`admin/v1/organisations/${encodeURIComponent(name)}`, { method: 'PUT', body }), refresh);
}

async function attempt(work, refresh) {
  try {
    await work();
    await refresh();
  } catch (error) {
    say(error.message);
  }
}
