package fault

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/block"
	"sluice/block/size"
)

// Parse reads a rule: OP:ITEM[,ITEM]…, where OP is read, write, flush, zero,
// discard, extents, prefetch, resize or any, and an ITEM one of
//
//	error=KIND       fail: io, no_space, transient, read_only, corrupt, fenced …
//	delay=TIME       take so much longer: 200ms
//	torn[=SIZE]      write a prefix, of that length or a random one, and fail
//	drop             do nothing and succeed
//	hang             wait until the rule is gone
//	range=SIZE-SIZE  only what touches these bytes, the last one left out; the
//	                 second may be missing: up to the end
//	probability=P    each time with probability P: 0.1
//	after=N          let N calls pass first
//	count=N          fire N times at most
//	for=TIME         only so long from when it was set
//	seed=N           draw random choices from another seed
//
// Errors are of kind Invalid and name the rule and what is wrong with it.
func Parse(text string) (Rule, error) {
	op, rest, found := strings.Cut(text, ":")
	if !found {
		return Rule{}, bad(text, "it has no colon: OP:WHAT, such as write:error=io")
	}
	r := Rule{Op: Op(op)}
	if !slices.Contains(ops, r.Op) {
		return Rule{}, bad(text, "%s is none of %s", quote(op), names(ops))
	}
	var seen []string
	for item := range strings.SplitSeq(rest, ",") {
		key, value, given := strings.Cut(item, "=")
		if slices.Contains(seen, key) {
			return Rule{}, bad(text, "%s comes twice", key)
		}
		if err := r.item(key, value, given); err != nil {
			return Rule{}, bad(text, "%w", err)
		}
		seen = append(seen, key)
	}
	if flaw := r.flaw(); flaw != "" {
		return Rule{}, bad(text, "%s", flaw)
	}
	return r, nil
}

// names lists operations.
func names(ops []Op) string {
	var list []string
	for _, op := range ops {
		list = append(list, string(op))
	}
	return strings.Join(list, ", ")
}

func bad(text, format string, args ...any) error {
	return block.Errorf(block.Invalid, "parse fault rule", quote(text), -1, format, args...)
}

// quote makes any text fit into one line.
func quote(text string) string {
	const most = 200
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}

// item takes one item into the rule.
func (r *Rule) item(key, value string, given bool) error {
	switch key {
	case "drop", "hang":
		if given {
			return fmt.Errorf("%s takes no value", key)
		}
		r.Drop, r.Hang = r.Drop || key == "drop", r.Hang || key == "hang"
		return nil
	case "torn":
		r.Torn = true
		if !given {
			return nil
		}
	case "error", "delay", "range", "probability", "after", "count", "for", "seed":
	default:
		return fmt.Errorf("%s is none of error, delay, torn, drop, hang, range, probability, after, count, for, seed", quote(key))
	}
	if !r.value(key, value) {
		return fmt.Errorf("%s=%s: want %s", key, quote(value), wants[key])
	}
	return nil
}

var wants = map[string]string{
	"error":       "one of " + kindNames(),
	"delay":       "a time above 0 such as 200ms",
	"torn":        "a multiple of 512 above 0 such as 4K",
	"range":       "FROM-TO in bytes such as 1M-2M, or FROM-",
	"probability": "a number above 0 and up to 1 such as 0.1",
	"after":       "a number of calls",
	"count":       "a number of calls above 0",
	"for":         "a time above 0 such as 20s",
	"seed":        "a number",
}

// value takes the value of an item into the rule; false: it is none.
func (r *Rule) value(key, value string) bool {
	var err error
	ok := true
	switch key {
	case "error":
		r.Error, ok = kindOf(value)
	case "delay":
		r.Delay, err = time.ParseDuration(value)
		ok = r.Delay > 0
	case "torn":
		r.TornAt, err = size.Parse(value)
		ok = r.TornAt > 0 && r.TornAt%sector == 0
	case "range":
		ok = r.span(value)
	case "probability":
		r.Probability, err = strconv.ParseFloat(value, 64)
		ok = r.Probability > 0 && r.Probability <= 1 // also false for what is not a number
	case "after":
		r.After, err = strconv.ParseInt(value, 10, 64)
		ok = r.After >= 0
	case "count":
		r.Count, err = strconv.ParseInt(value, 10, 64)
		ok = r.Count > 0
	case "for":
		r.For, err = time.ParseDuration(value)
		ok = r.For > 0
	case "seed":
		r.Seed, err = strconv.ParseUint(value, 10, 64)
	}
	return ok && err == nil
}

// span reads FROM-TO.
func (r *Rule) span(value string) bool {
	from, to, found := strings.Cut(value, "-")
	var err error
	if r.From, err = size.Parse(from); err != nil || !found {
		return false
	}
	if to == "" {
		return true
	}
	r.To, err = size.Parse(to)
	return err == nil && r.To > r.From
}

// String gives the rule as Parse reads it, always in the same order.
func (r Rule) String() string {
	var items []string
	add := func(there bool, item string) {
		if there {
			items = append(items, item)
		}
	}
	add(r.Error != block.OK, "error="+nameOf(r.Error))
	add(r.Delay != 0, "delay="+r.Delay.String())
	add(r.Torn && r.TornAt == 0, "torn")
	add(r.Torn && r.TornAt != 0, "torn="+exact(r.TornAt))
	add(r.Drop, "drop")
	add(r.Hang, "hang")
	add(r.ranged() && r.To == 0, "range="+exact(r.From)+"-")
	add(r.ranged() && r.To != 0, "range="+exact(r.From)+"-"+exact(r.To))
	add(r.Probability != 0, "probability="+strconv.FormatFloat(r.Probability, 'g', -1, 64))
	add(r.After != 0, "after="+strconv.FormatInt(r.After, 10))
	add(r.Count != 0, "count="+strconv.FormatInt(r.Count, 10))
	add(r.For != 0, "for="+r.For.String())
	add(r.Seed != 0, "seed="+strconv.FormatUint(r.Seed, 10))
	return string(r.Op) + ":" + strings.Join(items, ",")
}

// exact writes a size with a suffix where that says the same.
func exact(n int64) string {
	text := size.Format(n)
	if same, err := size.Parse(text); err == nil && same == n {
		return text
	}
	return strconv.FormatInt(n, 10)
}
