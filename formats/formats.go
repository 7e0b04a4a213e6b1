// Package formats opens image formats over a Device. The commands and the
// gateway call it with what a backend opened.
//
// What is known stands in one table. The format of an image is given by the
// user or follows from its name; it is never guessed from content, since a
// guest could write another format's header into a raw disk and so choose what
// the host opens.
//
// The package holds no state.
package formats

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"sluice/block"
	"sluice/formats/raw"
)

// Raw is the format of images without one: the bytes of the disk, as they are.
const Raw = "raw"

// format is a line of the table.
type format struct {
	name string
	open func(ctx context.Context, dev block.Device) (block.Device, error)
}

var table = []format{
	{Raw, raw.Open},
}

// extensions name formats, whether they can be opened or not: an image that says
// that it is of another format must not be taken for a raw one.
var extensions = map[string]string{
	".qcow2": "qcow2",
	".qcow":  "qcow",
	".qed":   "qed",
	".vhd":   "vhd",
	".vpc":   "vhd",
	".vhdx":  "vhdx",
	".vmdk":  "vmdk",
	".vdi":   "vdi",
	".hdd":   "parallels",
	".hds":   "parallels",
}

// Names lists the formats that can be opened.
func Names() []string {
	names := make([]string, 0, len(table))
	for _, f := range table {
		names = append(names, f.name)
	}
	return names
}

// Known reports whether a format goes by this name, also one that cannot be
// opened.
func Known(name string) bool {
	return slices.Contains(Names(), name) || slices.Contains(slices.Collect(maps.Values(extensions)), name)
}

// Open opens the image in dev. The result owns dev and closes it; when Open
// fails, dev is still the caller's.
func Open(ctx context.Context, dev block.Device, name string) (block.Device, error) {
	for _, f := range table {
		if f.name == name {
			return f.open(ctx, dev)
		}
	}
	return nil, block.Errorf(block.Invalid, "open", "", -1, "unknown format %q (known: %s)", name, strings.Join(Names(), ", "))
}

// FromName gives the format that the extension of a name, path or URL without
// parameters says, in either case; Raw where it says nothing.
func FromName(name string) string {
	if f, ok := extensions[strings.ToLower(path.Ext(name))]; ok {
		return f
	}
	return Raw
}
