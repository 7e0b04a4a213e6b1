package lint

// Rule is one thing to keep to. Check returns the breaches; an error means that
// it could not look.
type Rule struct {
	Name  string
	Check func(*Tree) ([]Finding, error)
}

// Rules are all of them, the quick ones first.
var Rules = []Rule{
	{"layers", quick(layers)},
	{"sizes", quick(sizes)},
	{"names", quick(names)},
	{"docs", quick(docs)},
	{"words", quick(words)},
	{"code", quick(code)},
	{"requirements", quick(requirements)},
	{"gofmt", quick(gofmt)},
	{"tags", quick(tags)},
	{"vet", vet},
	{"staticcheck", staticcheck},
	{"errcheck", errcheck},
}

// quick makes a Check of a rule that only looks at what is loaded.
func quick(rule func(*Tree) []Finding) func(*Tree) ([]Finding, error) {
	return func(t *Tree) ([]Finding, error) { return rule(t), nil }
}
