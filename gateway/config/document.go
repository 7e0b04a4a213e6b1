package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// document knows where everything in a file was written. Places are paths such
// as export[2].throttle.burst.
type document struct {
	parser   unstable.Parser
	newlines []int          // offsets
	lines    map[string]int // of paths
	counts   map[string]int // of tables like [[export]], by path
}

// mistake is what is wrong with a file, and where.
type mistake struct {
	line int
	text string
}

// read is readAll for those who want the first mistake alone.
func read(data []byte) (*document, *mistake) {
	d, all := readAll(data, 1)
	if len(all) > 0 {
		return nil, all[0]
	}
	return d, nil
}

// readAll walks through a file, notes where each key is, and gives the places that
// the structure has no place for, and in the end the first that is not TOML; no more
// than so many.
func readAll(data []byte, most int) (d *document, all []*mistake) {
	d = &document{lines: map[string]int{}, counts: map[string]int{}}
	for at := 0; ; {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			break
		}
		d.newlines = append(d.newlines, at+i)
		at += i + 1
	}
	d.parser.Reset(data)
	in, path := root, ""
	for d.parser.NextExpression() {
		var m *mistake
		e := d.parser.Expression()
		switch {
		case e.Kind != unstable.KeyValue:
			in, path, m = d.header(e)
		case in != nil: // else the table that it belongs to was a mistake
			m = d.keyValue(in, path, e)
		}
		if m == nil {
			continue
		}
		if all = append(all, m); len(all) == most {
			return d, all
		}
	}
	if m := d.malformed(); m != nil {
		all = append(all, m)
	}
	return d, all
}

// malformed tells where the parser could not go on.
func (d *document) malformed() *mistake {
	err := d.parser.Error()
	if err == nil {
		return nil
	}
	m := &mistake{text: err.Error()}
	var e *unstable.ParserError
	if errors.As(err, &e) {
		m.line = d.lineOf(d.parser.Range(e.Highlight).Offset)
	}
	return m
}

// header enters [a.b] or [[a.b]].
func (d *document) header(e *unstable.Node) (*table, string, *mistake) {
	in, path := root, ""
	var at int
	for it := e.Key(); it.Next(); {
		at = d.lineAt(it.Node())
		k, ok := in.keys[string(it.Node().Data)]
		if !ok {
			return nil, "", &mistake{at, unknown(in, path, string(it.Node().Data))}
		}
		path = join(path, k.name)
		switch {
		case k.takes == single && it.IsLast() && e.Kind == unstable.ArrayTable:
			return nil, "", &mistake{at, fmt.Sprintf("%q is one table: write [%s]", shape(path), shape(path))}
		case k.takes == single:
		case k.takes != many:
			return nil, "", &mistake{at, fmt.Sprintf("%q takes %s and is no table", shape(path), k.words(shape(path)))}
		case !it.IsLast():
			if d.counts[path] == 0 {
				return nil, "", &mistake{at, fmt.Sprintf("there is no [[%s]] above that this could belong to", path)}
			}
			path = element(path, d.counts[path]-1)
		case e.Kind != unstable.ArrayTable:
			return nil, "", &mistake{at, fmt.Sprintf("%q may be there more than once: write [[%s]]", shape(path), shape(path))}
		default:
			d.counts[path]++
			path = element(path, d.counts[path]-1)
		}
		in = k.table
	}
	d.lines[path] = at
	return in, path, nil
}

// keyValue looks at a.b = value.
func (d *document) keyValue(in *table, path string, e *unstable.Node) *mistake {
	for it := e.Key(); it.Next(); {
		at := d.lineAt(it.Node())
		k, ok := in.keys[string(it.Node().Data)]
		if !ok {
			return &mistake{at, unknown(in, path, string(it.Node().Data))}
		}
		path = join(path, k.name)
		d.lines[path] = at
		if it.IsLast() {
			return d.value(k, path, e.Value())
		}
		if k.takes != single {
			return &mistake{at, fmt.Sprintf("%q takes %s", shape(path), k.words(shape(path)))}
		}
		in = k.table
	}
	return nil
}

// value looks at what a key was given.
func (d *document) value(k *key, path string, v *unstable.Node) *mistake {
	wrong := &mistake{d.lines[path], fmt.Sprintf("%q takes %s", shape(path), k.words(shape(path)))}
	if !k.takes.accepts(v.Kind) {
		return wrong
	}
	n := 0
	for it := v.Children(); it.Next(); n++ {
		var m *mistake
		c := it.Node()
		switch k.takes {
		case single:
			m = d.keyValue(k.table, path, c)
		case list:
			if c.Kind != unstable.String {
				return wrong
			}
			d.lines[element(path, n)] = d.lineAt(c)
		case many:
			if c.Kind != unstable.InlineTable {
				return wrong
			}
			m = d.inline(k, element(path, n), c)
		}
		if m != nil {
			return m
		}
	}
	return nil
}

// inline looks at one table of a list of tables. It starts where its first key
// is: the parser does not tell where its bracket is.
func (d *document) inline(k *key, path string, v *unstable.Node) *mistake {
	for it := v.Children(); it.Next(); {
		kv := it.Node()
		if name := kv.Key(); d.lines[path] == 0 && name.Next() {
			d.lines[path] = d.lineAt(name.Node())
		}
		if m := d.keyValue(k.table, path, kv); m != nil {
			return m
		}
	}
	return nil
}

// lineAt gives the line of a key or of a text.
func (d *document) lineAt(n *unstable.Node) int { return d.lineOf(n.Raw.Offset) }

func (d *document) lineOf(offset uint32) int {
	before, _ := slices.BinarySearch(d.newlines, int(offset))
	return before + 1
}

// line gives the line of a path, or of what it lies in when it is not there
// itself; 0 when that is the whole file.
func (d *document) line(path string) int {
	for path != "" {
		if n := d.lines[path]; n > 0 {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func element(path string, n int) string { return path + "[" + strconv.Itoa(n) + "]" }
