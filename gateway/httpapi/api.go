package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sluice/block"
	"sluice/block/size"
	"sluice/gateway/wire"
)

// huma has this setting for the whole program alone: names of JSON members are
// what they are, "Name" is not "name".
func init() { huma.ValidateStrictCasing = true }

const about = `Exports of a Sluice daemon: adding, changing and removing them, and following what happens to them.

Sizes are bytes; where one is given, it may be text with a suffix too ("10G", powers of 1024). Durations are text ("30s", "1h30m").
Names in paths are percent-encoded. A failure is a problem of RFC 9457 with the members "kind", for programs, and "detail", a line for people.`

// routes makes the API and the pages about it.
func (s *Server) routes() {
	registry := newRegistry()
	cfg := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI:    "3.1.0",
			Info:       &huma.Info{Title: "Sluice", Version: s.version(), Description: about},
			Components: &huma.Components{Schemas: registry},
		},
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{explain},
	}
	api := humago.New(s.mux, cfg)
	s.exportRoutes(api)
	s.settingsRoutes(api)
	s.daemonRoutes(api)
	s.eventRoutes(api)
	finish(registry)
	s.pages(api.OpenAPI())
}

// version is the program's; the document has to have one.
func (s *Server) version() string {
	if s.cfg.Version == "" {
		return "unknown"
	}
	return s.cfg.Version
}

// jsonFormat writes an answer at once, and takes a client that has gone for no
// failure of the program.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return err
		}
		_, _ = w.Write(text.Bytes())
		return nil
	},
	Unmarshal: json.Unmarshal,
}

// route adds an operation. Its handler's errors become Problems.
func route[I, O any](api huma.API, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	op.MaxBodyBytes, op.BodyReadTimeout = -1, -1 // the guard has read it
	op.Responses = map[string]*huma.Response{
		"default": {
			Description: "Failure",
			Content: map[string]*huma.MediaType{wire.ProblemType: {
				Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[wire.Problem](), true, ""),
			}},
		},
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, wire.ProblemOf(err)
		}
		return out, nil
	})
}

// most is how many mistakes of one request are told of.
const most = 5

// explain makes a Problem of what huma finds wrong with a request. The values at
// fault are left out: a URL may hold a password.
func explain(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	var why []string
	for i, d := range e.Errors {
		if i == most {
			why = append(why, fmt.Sprintf("and %d mistakes more", len(e.Errors)-most))
			break
		}
		text := d.Message
		if d.Location != "" {
			text = d.Location + ": " + text
		}
		why = append(why, text)
	}
	if len(why) == 0 {
		why = []string{e.Detail}
	}
	kind := block.Invalid
	if e.Status == http.StatusInternalServerError {
		kind = block.IO
	}
	return refusal(e.Status, kind, strings.Join(why, "; ")), nil
}

func sizeText(n int64) string { return size.Format(n) + " (" + strconv.FormatInt(n, 10) + " bytes)" }
