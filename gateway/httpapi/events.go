package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sluice/block"
	"sluice/gateway"
)

// Events go out as server-sent events (the HTML standard, section 9.2). huma's
// package for them ties the event's name to a Go type, has no comments, which
// show that a quiet stream is alive, and no first bytes before the first event,
// so the few lines are our own.
//
//	id: SEQ
//	event: KIND
//	data: the Event as JSON

type subscribe struct {
	After       uint64 `query:"after" doc:"begin behind this sequence number; without it, with the oldest event that is still known"`
	LastEventID uint64 `header:"Last-Event-ID" doc:"the same, as browsers and libraries ask when they connect again; it wins over after"`
}

const eventsAbout = `Server-sent events: "id" is the sequence number, "event" the kind, "data" an Event. A comment comes at once, and then now and then, so
that a reader knows that the daemon is there. A reader that is too slow, or asks for events that are no longer known, gets an event of
the kind "lost" in their place, and has to look at everything anew.`

func (s *Server) eventRoutes(api huma.API) {
	op := huma.Operation{
		OperationID: "follow-events", Method: http.MethodGet, Path: "/v1/events",
		Summary: "Follow what happens", Tags: []string{"events"}, Description: eventsAbout,
	}
	route(api, op, s.events)
	event := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[gateway.Event](), true, "")
	api.OpenAPI().Paths[op.Path].Get.Responses["200"].Content = map[string]*huma.MediaType{
		"text/event-stream": {Schema: &huma.Schema{
			Type: huma.TypeString, Description: "a stream of events; what stands behind data: has the content schema",
			Extensions: map[string]any{"contentMediaType": "application/json", "contentSchema": event},
		}},
	}
}

// events answers with a stream that ends with its reader or with the Server.
func (s *Server) events(_ context.Context, in *subscribe) (*huma.StreamResponse, error) {
	if s.streams.Add(1) > s.limits.streams {
		s.streams.Add(-1)
		return nil, block.Errorf(block.Transient, "follow events", "", -1, "%d streams are open, which is the limit", s.limits.streams)
	}
	after := in.After
	if in.LastEventID > 0 {
		after = in.LastEventID
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer s.streams.Add(-1)
		r, w := humago.Unwrap(ctx)
		s.stream(r, w, after)
	}}, nil
}

func (s *Server) stream(r *http.Request, w http.ResponseWriter, after uint64) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	events := s.cfg.Gateway.Subscribe(ctx, after)
	defer func() {
		cancel()
		for range events { // the gateway closes it when it has seen the end
		}
	}()
	control := http.NewResponseController(w)
	say := func(text []byte) bool {
		if _, err := w.Write(text); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	beat := time.NewTicker(s.limits.heartbeat)
	defer beat.Stop()
	for ok := say([]byte(": events follow\n\n")); ok; {
		select {
		case e, more := <-events:
			ok = more && say(eventText(e))
		case <-beat.C:
			ok = say([]byte(":\n\n"))
		case <-s.ending:
			return
		}
	}
}

// eventText writes an event. JSON has no line breaks, so one line of data is
// enough. An event without a number has no id, so that a reader keeps the last.
func eventText(e gateway.Event) []byte {
	if e.Status != nil {
		st := shown(*e.Status)
		e.Status = &st
	}
	var text bytes.Buffer
	if e.Seq > 0 {
		text.WriteString("id: " + strconv.FormatUint(e.Seq, 10) + "\n")
	}
	text.WriteString("event: " + string(e.Kind) + "\ndata: ")
	enc := json.NewEncoder(&text) // which ends with a line break
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		panic(err) // it has texts and numbers only
	}
	text.WriteByte('\n')
	return text.Bytes()
}
