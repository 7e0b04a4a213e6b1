package config

import (
	"fmt"
	"slices"

	"github.com/pelletier/go-toml/v2"

	"sluice/gateway/endpoint"
)

// maxProblems is how many keys without a place are told of.
const maxProblems = 100

// Problem is something that is wrong with a file.
type Problem struct {
	Line int    `json:"line"` // 0: the file as a whole
	Text string `json:"text"` // one line
}

// Problems reads a file as Load does and gives all that is wrong with it, in the order
// of its lines: where Load stops at the first, this goes on as far as the rest can be
// understood. Files with certificates are looked at too. The error says that the file
// cannot be read. Nothing is changed and nobody is asked.
func Problems(path string) ([]Problem, error) {
	data, err := content(path)
	if err != nil {
		return nil, err
	}
	list := problems(data)
	for i := range list {
		list[i].Text = printable(list[i].Text)
	}
	slices.SortStableFunc(list, func(a, b Problem) int { return a.Line - b.Line })
	return list, nil
}

func problems(data []byte) (list []Problem) {
	if len(data) > maxSize {
		return []Problem{{0, fmt.Sprintf("it has more than %d bytes", maxSize)}}
	}
	doc, mistakes := readAll(data, maxProblems)
	for _, m := range mistakes {
		list = append(list, Problem{m.line, m.text})
	}
	c := Default()
	switch err := toml.Unmarshal(data, c); {
	case err != nil && len(list) > 0:
		return list // what is wrong is told already
	case err != nil:
		line, text := explain(err)
		return append(list, Problem{line, text})
	}
	for _, p := range append(c.check(doc.line), c.certificates()...) {
		list = append(list, Problem{doc.line(p.path), p.text})
	}
	return list
}

// certificates reads the files that a start needs.
func (c *Config) certificates() (all []*problem) {
	for _, t := range []struct {
		table string
		Certs
	}{{"tls", c.TLS.Certs}, {"api_tls", c.APITLS}} {
		if t.Cert == "" || t.Key == "" {
			continue
		}
		if _, err := endpoint.ServerTLS(t.Cert, t.Key, t.CA); err != nil {
			all = append(all, wrong(t.table+".cert", "%s: %v", t.table, err))
		}
	}
	return all
}
