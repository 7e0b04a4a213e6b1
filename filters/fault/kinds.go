package fault

import (
	"strings"

	"sluice/block"
)

// kinds are the names of errors in rules: those that metrics show.
var kinds = []struct {
	name string
	kind block.Kind
}{
	{"io", block.IO},
	{"invalid", block.Invalid},
	{"out_of_range", block.OutOfRange},
	{"no_space", block.NoSpace},
	{"read_only", block.ReadOnly},
	{"permission", block.Permission},
	{"not_found", block.NotFound},
	{"exists", block.Exists},
	{"busy", block.Busy},
	{"corrupt", block.Corrupt},
	{"transient", block.Transient},
	{"fenced", block.Fenced},
	{"closed", block.Closed},
	{"unsupported", block.Unsupported},
	{"canceled", block.Canceled},
}

func kindOf(name string) (block.Kind, bool) {
	for _, k := range kinds {
		if k.name == name {
			return k.kind, true
		}
	}
	return block.OK, false
}

func nameOf(kind block.Kind) string {
	for _, k := range kinds {
		if k.kind == kind {
			return k.name
		}
	}
	return kind.String()
}

func kindNames() string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return strings.Join(names, ", ")
}
