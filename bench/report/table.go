package report

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table is a grid of text that is written as aligned Markdown, so that it can be read raw and diffed by line.
type table struct {
	head []string
	rows [][]string
	left int // so many first columns are aligned left, the others right
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// empty tells that there is no row, or that no row has a figure right of the left columns.
func (t *table) empty() bool {
	for _, r := range t.rows {
		for _, c := range r[min(t.left, len(r)):] {
			if c != "" {
				return false
			}
		}
	}
	return true
}

func (t *table) String() string {
	widths := make([]int, len(t.head))
	for _, r := range append([][]string{t.head}, t.rows...) {
		for i, c := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(c), 3)
		}
	}
	var b strings.Builder
	t.line(&b, t.head, widths)
	for i, w := range widths {
		if i < t.left {
			fmt.Fprintf(&b, "| %s ", strings.Repeat("-", w))
		} else {
			fmt.Fprintf(&b, "| %s: ", strings.Repeat("-", w-1))
		}
	}
	b.WriteString("|\n")
	for _, r := range t.rows {
		t.line(&b, r, widths)
	}
	return b.String()
}

func (t *table) line(b *strings.Builder, cells []string, widths []int) {
	for i, c := range cells {
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
		if i < t.left {
			fmt.Fprintf(b, "| %s%s ", c, pad)
		} else {
			fmt.Fprintf(b, "| %s%s ", pad, c)
		}
	}
	b.WriteString("|\n")
}
