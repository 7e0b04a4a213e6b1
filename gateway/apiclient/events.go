package apiclient

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"sluice/block"
	"sluice/gateway"
)

// maxEvent bounds an event's bytes.
const maxEvent = 1 << 20

// Events follows what happens, from behind a sequence number on (0: from the
// oldest event that the daemon still knows). The sequence ends with an error, as
// its last pair: of kind Canceled when ctx ended, Closed when the daemon ended the
// stream, and else what went wrong. To go on, ask again after the last event's
// number; an event of kind EventsLost says that some are missing.
//
// A caller that does not take the pairs as they come is a slow reader.
func (c *Client) Events(ctx context.Context, after uint64) iter.Seq2[gateway.Event, error] {
	return func(yield func(gateway.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // hangs up
		path := "/v1/events"
		if after > 0 {
			path += "?after=" + strconv.FormatUint(after, 10)
		}
		res, err := c.send(ctx, http.MethodGet, path, nil)
		if err != nil {
			yield(gateway.Event{}, err)
			return
		}
		defer func() { _ = res.Body.Close() }()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, maxEvent)
		for {
			e, err := nextEvent(lines)
			if err != nil {
				yield(gateway.Event{}, c.ended(ctx, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// nextEvent reads up to the blank line behind an event that has data. The
// sequence number and the kind stand in the data too.
func nextEvent(lines *bufio.Scanner) (e gateway.Event, err error) {
	data := ""
	for lines.Scan() {
		line := lines.Text()
		if value, ok := strings.CutPrefix(line, "data:"); ok {
			data += strings.TrimPrefix(value, " ") + "\n"
		}
		if line == "" && data != "" {
			return e, json.Unmarshal([]byte(data), &e)
		}
	}
	if err := lines.Err(); err != nil {
		return e, err
	}
	return e, io.EOF
}

// ended explains the end of a stream.
func (c *Client) ended(ctx context.Context, err error) error {
	const op = "follow events of the daemon at"
	switch {
	case ctx.Err() != nil:
		return block.Errorf(block.Canceled, op, c.Address(), -1, "%w", ctx.Err())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return block.Errorf(block.Closed, op, c.Address(), -1, "the daemon ended the stream")
	}
	return block.Wrap(err, op, c.Address(), -1)
}
