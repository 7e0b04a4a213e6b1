package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"sluice/gateway/spec"
)

// takes is what a key may be given.
type takes uint8

const (
	text takes = iota
	yesNo
	number
	duration
	byteSize
	mode
	list
	single // a table
	many   // tables
)

// table is what a table may hold.
type table struct {
	keys  map[string]*key
	names []string // in the order of the structure
}

// key is one key of a table.
type key struct {
	name  string
	takes takes
	table *table // of single and many
}

// root is the whole file. Config is its only source: there is no second list of
// keys to keep up.
var root = tableOf(reflect.TypeFor[Config]())

func tableOf(t reflect.Type) *table {
	tab := &table{keys: map[string]*key{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if f.Anonymous && name == "" { // its keys lie beside the others
			inner := tableOf(f.Type)
			for _, n := range inner.names {
				tab.add(inner.keys[n])
			}
			continue
		}
		k := &key{name: name, takes: takenBy(f.Type)}
		switch k.takes {
		case single:
			k.table = tableOf(f.Type)
		case many:
			k.table = tableOf(f.Type.Elem())
		}
		tab.add(k)
	}
	return tab
}

func (t *table) add(k *key) {
	t.keys[k.name] = k
	t.names = append(t.names, k.name)
}

// takenBy says what a field's type takes. A type that it does not know is a
// mistake of the program, which every test shows.
func takenBy(t reflect.Type) takes {
	switch t {
	case reflect.TypeFor[spec.Duration]():
		return duration
	case reflect.TypeFor[spec.Size]():
		return byteSize
	case reflect.TypeFor[FileMode]():
		return mode
	case reflect.TypeFor[[]string]():
		return list
	}
	switch t.Kind() {
	case reflect.String:
		return text
	case reflect.Bool:
		return yesNo
	case reflect.Int, reflect.Int64:
		return number
	case reflect.Struct:
		return single
	case reflect.Slice:
		return many
	}
	panic(fmt.Sprintf("config: no key can have the type %v", t))
}

// accepts reports whether a value of this kind can be given.
func (t takes) accepts(k unstable.Kind) bool {
	switch t {
	case text, duration, mode:
		return k == unstable.String
	case yesNo:
		return k == unstable.Bool
	case number:
		return k == unstable.Integer
	case byteSize:
		return k == unstable.String || k == unstable.Integer
	case list, many:
		return k == unstable.Array
	case single:
		return k == unstable.InlineTable
	}
	return false
}

// words says what the key of that path takes.
func (k *key) words(path string) string {
	switch k.takes {
	case yesNo:
		return "true or false"
	case number:
		return "a whole number"
	case duration:
		return `a duration in quotes ("500ms", "30s", "5m")`
	case byteSize:
		return `a number of bytes or a size in quotes ("10M")`
	case mode:
		return `a file's mode in quotes ("0640")`
	case list:
		return `a list (["…", "…"])`
	case single:
		return "a table, [" + path + "]"
	case many:
		return "tables, [[" + path + "]]"
	}
	return `text in quotes ("…")`
}
