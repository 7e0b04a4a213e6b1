package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"sluice/block"
	"sluice/gateway/spec"
)

type replace struct {
	Name string `path:"name" doc:"the export's name, percent-encoded"`
	Body spec.Settings
}

type patch struct {
	Name string        `path:"name" doc:"the export's name, percent-encoded"`
	Body settingsPatch `contentType:"application/merge-patch+json"`
}

func (s *Server) settingsRoutes(api huma.API) {
	const path = "/v1/exports/{name}/settings"
	route(api, huma.Operation{
		OperationID: "replace-settings", Method: http.MethodPut, Path: path,
		Summary: "Replace the settings of an export", Tags: []string{"settings"},
		Description: "What is not given gets its default.",
	}, s.replaceSettings)
	route(api, huma.Operation{
		OperationID: "change-settings", Method: http.MethodPatch, Path: path,
		Summary: "Change some settings of an export", Tags: []string{"settings"},
		Description: "A JSON merge patch (RFC 7396): what is not given stays, null brings back the default, lists are replaced as a whole.",
	}, s.patchSettings)
}

const changeOp = "change export"

func (s *Server) replaceSettings(ctx context.Context, in *replace) (*one, error) {
	release, err := s.change(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.put(ctx, in.Name, in.Body)
}

func (s *Server) patchSettings(ctx context.Context, in *patch) (*one, error) {
	release, err := s.change(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	st, err := s.cfg.Gateway.Show(in.Name)
	if err != nil {
		return nil, block.Wrap(err, changeOp, in.Name, -1)
	}
	next, err := in.Body.apply(st.Spec.Settings)
	if err != nil {
		return nil, block.Errorf(block.Invalid, changeOp, in.Name, -1, "%w", err)
	}
	return s.put(ctx, in.Name, next)
}

// put checks the settings as a part of a Spec and changes them.
func (s *Server) put(ctx context.Context, name string, next spec.Settings) (*one, error) {
	whole := spec.Spec{Name: name, URL: "unchanged", Settings: next}
	if err := whole.Check(); err != nil {
		return nil, err
	}
	st, err := s.cfg.Gateway.Change(ctx, name, next)
	return answered(st, err, changeOp, name)
}

// settingsPatch is a merge patch of spec.Settings, as it came.
type settingsPatch json.RawMessage

// UnmarshalJSON implements json.Unmarshaler.
func (p *settingsPatch) UnmarshalJSON(data []byte) error {
	*p = append((*p)[:0], data...)
	return nil
}

// Schema implements huma.SchemaProvider: the settings, each of which may be null.
func (p *settingsPatch) Schema(r huma.Registry) *huma.Schema {
	const name = "SettingsPatch"
	of := r.Schema(reflect.TypeFor[spec.Settings](), true, "")
	s := nullable(r, of)
	s.Nullable = false
	s.PrecomputeMessages()
	r.Map()[name] = s
	return &huma.Schema{Ref: "#/components/schemas/" + name}
}

// nullable copies a schema and those of its members, so that null is right too.
func nullable(r huma.Registry, s *huma.Schema) *huma.Schema {
	for s.Ref != "" {
		s = r.SchemaFromRef(s.Ref)
	}
	made := *s
	if kinds, ok := s.Extensions["type"].([]string); ok {
		made.Extensions = map[string]any{"type": append(kinds[:len(kinds):len(kinds)], "null")}
		return &made
	}
	made.Nullable = true
	if s.Properties != nil {
		made.Properties = map[string]*huma.Schema{}
		for name, member := range s.Properties {
			made.Properties[name] = nullable(r, member)
		}
	}
	return &made
}

// apply gives the settings that the patch makes of others.
func (p settingsPatch) apply(to spec.Settings) (spec.Settings, error) {
	old, err := json.Marshal(to)
	if err != nil {
		return spec.Settings{}, err
	}
	var whole, changes map[string]any
	if err := decode(old, &whole); err != nil {
		return spec.Settings{}, err
	}
	if err := decode(p, &changes); err != nil {
		return spec.Settings{}, err
	}
	text, err := json.Marshal(merged(whole, changes))
	if err != nil {
		return spec.Settings{}, err
	}
	var next spec.Settings
	return next, decode(text, &next)
}

// decode keeps numbers as they are written: one of 64 bits is no float64.
func decode(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// merged is MergePatch of RFC 7396, section 2.
func merged(to any, change any) any {
	changes, ok := change.(map[string]any)
	if !ok {
		return change
	}
	whole, ok := to.(map[string]any)
	if !ok {
		whole = map[string]any{}
	}
	for name, v := range changes {
		if v == nil {
			delete(whole, name)
			continue
		}
		whole[name] = merged(whole[name], v)
	}
	return whole
}
