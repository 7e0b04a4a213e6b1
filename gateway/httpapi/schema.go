package httpapi

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"sluice/gateway"
	"sluice/gateway/spec"
	"sluice/gateway/wire"
)

// newRegistry makes the registry of schemas, which knows how types of other
// packages write themselves.
func newRegistry() huma.Registry {
	r := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	r.RegisterTypeAlias(reflect.TypeFor[spec.Size](), reflect.TypeFor[sizeSchema]())
	r.RegisterTypeAlias(reflect.TypeFor[spec.Duration](), reflect.TypeFor[durationSchema]())
	return r
}

// sizeSchema stands for spec.Size. huma checks no type that is a list; the type
// itself does when it is read, and says better what is wrong.
type sizeSchema struct{}

// Schema implements huma.SchemaProvider.
func (sizeSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Extensions: map[string]any{"type": []string{"integer", "string"}}, Examples: []any{10485760, "10M"}}
}

// durationSchema stands for spec.Duration.
type durationSchema struct{}

// Schema implements huma.SchemaProvider.
func (durationSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{"30s", "1h30m"}}
}

// finish completes the schemas when all are there: what members mean, which
// values they can have, and that lists are never null.
func finish(r huma.Registry) {
	all := r.Map()
	delete(all, "ErrorModel") // huma's own, which no answer has
	delete(all, "ErrorDetail")
	for name, s := range all {
		said := members[name]
		if name == "SettingsPatch" {
			said = members["Settings"]
		}
		for member, p := range s.Properties {
			if p.Type == huma.TypeArray {
				p.Nullable = name == "SettingsPatch"
			}
			p.Description = said[member]
			p.Enum = values[name+"."+member]
			p.PrecomputeMessages()
		}
	}
	describe(all["SettingsPatch"].Properties["on_error"], "OnError")
	describe(all["SettingsPatch"].Properties["throttle"], "Throttle")
}

// describe does the same for a schema that stands inside another.
func describe(s *huma.Schema, name string) {
	for member, p := range s.Properties {
		p.Description = members[name][member]
	}
}

// values are what members can have.
var values = map[string][]any{
	"Status.state": {
		string(gateway.Opening), string(gateway.Serving), string(gateway.Held), string(gateway.Frozen),
		string(gateway.Swapping), string(gateway.Closing), string(gateway.Failed),
	},
	"Status.source": {"config", "api"},
	"Event.kind": {
		string(gateway.ExportAdded), string(gateway.ExportRemoved), string(gateway.ExportChanged), string(gateway.ExportState),
		string(gateway.ExportSwapped), string(gateway.Reloaded), string(gateway.Unmounted), string(gateway.Mounted),
		string(gateway.EventsLost),
	},
	"Problem.kind": kindValues(),
}

func kindValues() (all []any) {
	for _, name := range wire.KindNames() {
		all = append(all, name)
	}
	return all
}

// settings are the members of Settings, which a Spec has beside its own.
var settings = map[string]string{
	"on_error":     "what happens when the storage fails",
	"throttle":     "bounds for reads and writes",
	"slow_request": "how long a request may take before it is logged; 0: the daemon's default",
	"faults":       "rules that make the export fail, for rehearsals; only where the daemon allows them",
}

func withSettings(own map[string]string) map[string]string {
	for name, text := range settings {
		own[name] = text
	}
	return own
}

// members say what the members of each schema mean.
var members = map[string]map[string]string{
	"Spec": withSettings(map[string]string{
		"name":            "for NBD clients, and the name of the file under FUSE: at most 255 bytes, printable, without /",
		"url":             "the image, as the daemon sees it; a local path is absolute. Passwords are not shown",
		"format":          "of the image; without it, by the name's extension, else raw",
		"description":     "shown to clients that list exports",
		"read_only":       "refuse changes",
		"direct":          "bypass the page cache (O_DIRECT)",
		"share":           "permit other writers at the same time",
		"unlocked":        "take no image lock",
		"nbd":             "addresses of the export's own, unix:PATH or tcp:HOST:PORT, where it is the default export",
		"max_connections": "NBD clients at once; 0: only the daemon's bound",
		"allow":           "common names of certificates that let a client in; none: all that the daemon lets in",
		"no_fuse":         "leave it out of the FUSE mount",
		"passthrough":     "let the kernel move the bytes of the FUSE file: they are not throttled, held or counted",
	}),
	"Settings": settings,
	"OnError": {
		"policy":   "hold (also when empty): requests wait; error: they fail; read-only: they fail, and changes are refused from then on",
		"limit":    "how long hold waits; 0: for ever",
		"no_space": "a full medium is such a failure too",
	},
	"Throttle": {
		"read_iops":   "reads a second; 0: no bound",
		"write_iops":  "writes a second; 0: no bound",
		"read_bytes":  "bytes read a second; 0: no bound",
		"write_bytes": "bytes written a second; 0: no bound",
		"burst":       "how much time's worth may be saved up; 0: 100ms",
	},
	"Status": {
		"spec":          "what the export was asked to be",
		"state":         "what it is doing",
		"since":         "when the state began",
		"error":         "why it is held, frozen or failed",
		"source":        "where it comes from: the configuration, or this API",
		"size":          "bytes",
		"read_only":     "whether changes are refused",
		"capabilities":  "of the device stack",
		"uris":          "where NBD clients find it",
		"file":          "where it is under FUSE",
		"file_error":    "why it is not there under FUSE, though it should be",
		"passthrough":   "whether the kernel moves the bytes of the FUSE file",
		"connections":   "NBD clients",
		"open_files":    "how often the FUSE file is open",
		"held_requests": "requests that wait for the storage",
	},
	"Exports": {"exports": "in the order of their names"},
	"Resize": {
		"size":   "the new size",
		"shrink": "permit less than the present size: what lies behind the new end is lost",
	},
	"AllStats": {"stats": "for each export, in the order of their names"},
	"Stats":    {"name": "the export's", "ops": "for each operation"},
	"OpStats": {
		"protocol": "the way it came: nbd or fuse", "op": "the operation", "requests": "answered, failures included", "bytes": "read or written", "errors": "failures",
		"seconds": "that all requests took together", "p50": "half of the requests took at most so many seconds",
		"p99": "99 of 100 took at most so many seconds", "in_flight": "requests at this moment",
	},
	"Event": {
		"seq": "counts up by one", "time": "when it happened", "kind": "what happened", "export": "to which",
		"status": "of the export after it", "detail": "more in words",
	},
	"Daemon": {
		"version": "of the program", "pid": "of the process", "started": "when", "exports": "how many there are",
		"addresses": "where the daemon can be reached", "problems": "what is wrong with the daemon itself, and what to do about it",
	},
	"Addresses": {"api": "of this API", "nbd": "of the NBD server", "fuse": "folder of the FUSE mount", "metrics": "of Prometheus metrics"},
	"Problem": {
		"title": "the status in words", "status": "HTTP's", "detail": "what happened, in one line", "kind": "what sort of failure it is",
		"operation": "what was tried", "object": "with what",
	},
}
