package main

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Names come from servers, folders and command lines of others. What a terminal
// would obey instead of showing is written as an escape sequence of Go's.

// escaped replaces what cannot be printed, inside a text.
func escaped(text string) string {
	clean := true
	for _, r := range text {
		clean = clean && r != utf8.RuneError && unicode.IsPrint(r)
	}
	if clean {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if r != utf8.RuneError && unicode.IsPrint(r) {
			b.WriteString(text[:n])
		} else {
			quoted := strconv.Quote(text[:n])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[n:]
	}
	return b.String()
}

// printable gives a name that is to stand alone: in quotes where it has
// something that cannot be printed, or looks as if it were in quotes.
func printable(name string) string {
	if escaped(name) != name || strings.HasPrefix(name, `"`) {
		return strconv.Quote(name)
	}
	return name
}
