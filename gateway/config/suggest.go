package config

import (
	"fmt"
	"strings"
)

// unknown is what is said of a key that a table does not have: which one is
// likely meant, or where the key belongs.
func unknown(in *table, path, name string) string {
	said := fmt.Sprintf("unknown key %q", name)
	if near := nearest(in, name); near != "" {
		return fmt.Sprintf("%s; did you mean %q?", said, near)
	}
	if in != root {
		if _, ok := root.keys[name]; ok {
			return said + " here; it belongs above the first [table] of the file"
		}
	}
	if where := home(root, "", name); where != "" && where != shape(path) {
		return fmt.Sprintf("%s here; it belongs to [%s]", said, where)
	}
	return said
}

// home finds the table that has a key, and gives its path.
func home(in *table, path, name string) string {
	for _, n := range in.names {
		k := in.keys[n]
		if k.table == nil {
			continue
		}
		at := join(path, n)
		if _, ok := k.table.keys[name]; ok {
			return at
		}
		if deeper := home(k.table, at, name); deeper != "" {
			return deeper
		}
	}
	return ""
}

// shape takes the numbers of elements out of a path.
func shape(path string) string {
	var b strings.Builder
	for piece := range strings.SplitSeq(path, "]") {
		name, _, _ := strings.Cut(piece, "[")
		b.WriteString(name)
	}
	return b.String()
}

// nearest gives the key of a table that a name is a misspelling of: one letter
// in three may be wrong.
func nearest(in *table, name string) string {
	best, limit := "", max(len(name)/3, 1)
	if len(name) > 64 {
		return ""
	}
	plain := strings.ReplaceAll(strings.ToLower(name), "-", "_")
	for _, n := range in.names {
		if d := distance(plain, n); d <= limit {
			best, limit = n, d-1
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour to make a of b.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last = last, row
		row = make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
