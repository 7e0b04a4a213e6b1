package wire

import (
	"errors"
	"net/http"
	"strings"

	"sluice/block"
)

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// Problem is a failure as RFC 9457 writes it, with members of our own. Its type
// is about:blank, which the RFC lets be left out: what a program may want to tell
// apart is in Kind.
type Problem struct {
	Title  string `json:"title"`  // the status in words
	Status int    `json:"status"` // HTTP's
	Detail string `json:"detail"` // what a person is told, one line
	Kind   string `json:"kind"`   // KindNames has them

	// What was tried, and with what; Detail begins with them where they are there.
	Operation string `json:"operation,omitempty"`
	Object    string `json:"object,omitempty"`
}

// ProblemOf makes a Problem of an error.
func ProblemOf(err error) *Problem {
	kind := block.KindOf(err)
	status := HTTPStatus(kind)
	p := &Problem{Title: http.StatusText(status), Status: status, Kind: KindName(kind), Detail: oneLine(err.Error())}
	var e *block.Error
	if errors.As(err, &e) && e.Error() == err.Error() {
		p.Operation, p.Object = e.Op, e.Object
	}
	return p
}

// oneLine joins the lines of an error that has several.
func oneLine(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ") }

// Error gives the line for a person.
func (p *Problem) Error() string { return p.Detail }

// GetStatus gives the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType gives the media type that the problem is written as.
func (p *Problem) ContentType(string) string { return ProblemType }

// Err gives the error that the Problem was made of, with the same kind and the
// same text; its cause is a text only.
func (p *Problem) Err() *block.Error {
	e := &block.Error{Kind: KindNamed(p.Kind), Op: p.Operation, Object: p.Object, Off: -1}
	prefix := (&block.Error{Op: p.Operation, Object: p.Object, Off: -1, Err: errors.New("")}).Error()
	cause, ok := strings.CutPrefix(p.Detail, prefix)
	if !ok || p.Operation == "" {
		e.Op, cause, ok = strings.Cut(p.Detail, ": ")
		e.Object = ""
	}
	if ok && cause != e.Kind.String() {
		e.Err = errors.New(cause)
	}
	return e
}
