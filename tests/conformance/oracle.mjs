// eventsource-parser as a process: a line of JSON in, a line of JSON out, until the end.
// In: [path of the package, [pieces in base64]]. Out: what the pieces mean.
import { createInterface } from "node:readline";

let createParser;

function parse(pieces) {
  const parsed = { events: [], last_id: "", retry: null, comments: [] };
  const parser = createParser({
    onId: (id) => { parsed.last_id = id; },
    onEvent: ({ event, data }) =>
      parsed.events.push([data, event ?? "", parsed.last_id]),
    onRetry: (retry) => { parsed.retry = retry; },
    onComment: (comment) => parsed.comments.push(comment),
  });
  // The parser takes off the byte-order mark, not the decoder: one is enough.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  for (const piece of pieces)
    parser.feed(decoder.decode(Buffer.from(piece, "base64"), { stream: true }));
  return parsed;
}

for await (const line of createInterface({ input: process.stdin })) {
  const [place, pieces] = JSON.parse(line);
  createParser ??= (await import(place)).createParser;
  process.stdout.write(JSON.stringify(parse(pieces)) + "\n");
}
