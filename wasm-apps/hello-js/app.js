// Serves HTTP. `fetch`, `URL`, `Request`, `Response`, streams and timers are those of the web.
import { getEnvironment } from "wasi:cli/environment@0.2.10";

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const url = new URL(request.url);
  const route = routes[url.pathname];
  return route ? route(request, url) : new Response("not found\n", { status: 404 });
}

const routes = {
  "/": () => {
    // The environment is the pod's: ask for it when a request comes, not while the component is built.
    const { GREETING = "Hello", HOSTNAME = "JavaScript" } = Object.fromEntries(getEnvironment());
    return new Response(`${GREETING} from ${HOSTNAME}\n`);
  },
  "/healthz": () => new Response("ok\n"),
  "/headers": (request) => Response.json(Object.fromEntries(request.headers)),
  "/sum": async (request) => {
    const numbers = await request.json();
    return Response.json({ sum: numbers.reduce((sum, number) => sum + number, 0) });
  },
  "/call": async (_, url) => {
    try {
      const called = await fetch(url.searchParams.get("url"));
      return new Response(await called.text(), { status: called.status });
    } catch (error) {
      return new Response(`${error}\n`, { status: 502 });
    }
  },
  "/log": (_, url) => {
    console.log(url.searchParams.get("text"));
    return new Response("logged\n");
  },
  "/throw": () => thrower(),
  "/spin": () => {
    for (;;);
  },
};

// What nobody catches ends this request and no other; the log shows where it was.
function thrower() {
  throw new Error("thrown as asked");
}
