// Requests to the server that this page came from.

export class Refused extends Error {
  constructor(status, detail, body) {
    super(detail);
    this.status = status;
    this.body = body;
  }
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused(0, "the editor does not answer: is `kosmos2 edit` still running?", {});
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body.detail ?? response.statusText, body);
  return body;
}

export const get = path => answer(path);

export const post = (path, body) =>
  answer(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    keepalive: true, // an edit that is on its way survives the closing of its page
  });

// The token keeps a browser from showing pictures of a store that was served here before.
export const picture = (number, token) => `/api/records/${number}/picture?of=${token}`;
export const thumbnail = (number, token) => `/api/records/${number}/thumbnail?of=${token}`;
