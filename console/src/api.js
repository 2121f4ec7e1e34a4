// The server's HTTP API, as this page uses it.

const encode = (bytes) => btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
const text = (value) => encode(new TextEncoder().encode(value));
const kTokenSeconds = 600;

async function sign({key, secret}) {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: key, sub: 'console', nbf: now - 5, exp: now + kTokenSeconds,
    video: {roomCreate: true, roomList: true}, agent: {admin: true},
  };
  const body = `${text('{"alg":"HS256","typ":"JWT"}')}.${text(JSON.stringify(claims))}`;
  const hmac = await crypto.subtle.importKey(
    'raw', new TextEncoder().encode(secret), {name: 'HMAC', hash: 'SHA-256'}, false, ['sign']);
  return `${body}.${encode(new Uint8Array(await crypto.subtle.sign('HMAC', hmac, new TextEncoder().encode(body))))}`;
}

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Talks to the server that the page came from. `credentials`: {key, secret} or {token}.
export class Api {
  constructor(credentials) {
    this.credentials = credentials;
    this.signed = null;
    this.signedUntil = 0;
  }

  async bearer() {
    if (this.credentials.token) return this.credentials.token;
    if (!crypto.subtle) {
      throw new Error('This browser signs only on https or localhost: sign in with a token instead.');
    }
    if (Date.now() > this.signedUntil) {
      this.signed = await sign(this.credentials);
      this.signedUntil = Date.now() + kTokenSeconds * 500;
    }
    return this.signed;
  }

  async send(method, path, body, signal) {
    const headers = {authorization: `Bearer ${await this.bearer()}`};
    if (body !== undefined) headers['content-type'] = 'application/json';
    const answer = await fetch(path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal});
    if (answer.ok) return answer;
    const error = await answer.json().catch(() => ({}));
    throw new ApiError(answer.status, error.msg ?? `${method} ${path}: ${answer.status}`);
  }

  async get(path) {
    return (await this.send('GET', path, undefined, AbortSignal.timeout(10000))).json();
  }

  async post(path, body) {
    return (await this.send('POST', path, body, AbortSignal.timeout(15000))).json();
  }

  // Calls `told` with each event until the server ends the stream or `signal` aborts. EventSource cannot send the token in a
  // header, and in the URL it would end up in logs.
  async watch(path, told, signal) {
    const answer = await this.send('GET', path, undefined, signal);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      const events = (rest + value).split('\n\n');
      rest = events.pop();
      for (const event of events) {
        const data = event.split('\n').find((line) => line.startsWith('data: '));
        if (data) told(JSON.parse(data.slice(6)));
      }
    }
  }
}
