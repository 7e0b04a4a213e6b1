package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"sluice/block"
	"sluice/gateway/wire"
)

// guard lets in who may come in, and requests of a size and in a time that does
// no harm, and tells of failures that no route sees in the same form as of others.
func (s *Server) guard(next http.Handler) http.Handler {
	var origin http.CrossOriginProtection // a browser with a certificate may be on other sites too
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			panic(http.ErrAbortHandler) // which hangs up
		}
		defer s.handlers.Done()
		answer := &answer{ResponseWriter: w, control: http.NewResponseController(w), limit: s.limits.write}
		begin := time.Now()
		defer func() {
			s.log.Debug("api", "method", r.Method, "path", r.URL.Path, "status", answer.status, "took", time.Since(begin))
		}()
		problem := s.refused(r)
		if problem == nil && origin.Check(r) != nil {
			problem = refusal(http.StatusForbidden, block.Permission, "the request comes from a page of another origin")
		}
		if problem == nil {
			problem = s.receive(answer, r)
		}
		if problem == nil {
			problem = s.misdirected(answer, r)
		}
		if problem != nil {
			answer.problem(problem)
			return
		}
		next.ServeHTTP(answer, r)
	})
}

// refusal makes a Problem of a request that no operation was tried for.
func refusal(status int, kind block.Kind, why string) *wire.Problem {
	p := wire.ProblemOf(block.Errorf(kind, "check request", "", -1, "%s", why))
	p.Status, p.Title = status, http.StatusText(status)
	return p
}

// refused looks at the client's certificate.
func (s *Server) refused(r *http.Request) *wire.Problem {
	if r.TLS == nil || len(s.cfg.Allow) == 0 {
		return nil
	}
	name := r.TLS.PeerCertificates[0].Subject.CommonName // TLS has verified it
	if slices.Contains(s.cfg.Allow, name) {
		return nil
	}
	return wire.ProblemOf(block.Errorf(block.Permission, "let in", name, -1, "the certificate's name is not among those that may use the API"))
}

// receive reads the whole body. Then there is no deadline for reading any more:
// net/http takes one that passes for the end of the client, and the storage may
// need longer. Deadlines for writing are set with each write.
func (s *Server) receive(w *answer, r *http.Request) *wire.Problem {
	if r.ContentLength != 0 {
		body, err := io.ReadAll(http.MaxBytesReader(w.ResponseWriter, r.Body, s.limits.body))
		var large *http.MaxBytesError
		var timeout net.Error
		switch {
		case errors.As(err, &large):
			return refusal(http.StatusRequestEntityTooLarge, block.Invalid, "the body is larger than "+sizeText(s.limits.body))
		case errors.As(err, &timeout) && timeout.Timeout():
			return refusal(http.StatusRequestTimeout, block.Invalid, "the body did not come in time")
		case err != nil:
			return refusal(http.StatusBadRequest, block.Invalid, "the body cannot be read")
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	_ = w.control.SetReadDeadline(time.Time{}) // both fail only where the connection is gone
	_ = w.control.SetWriteDeadline(time.Time{})
	return nil
}

// misdirected finds requests for which there is no route. The mux would answer
// them in its own way.
func (s *Server) misdirected(w *answer, r *http.Request) *wire.Problem {
	handler, pattern := s.mux.Handler(r)
	if pattern != "" {
		return nil
	}
	said := &verdict{header: http.Header{}}
	handler.ServeHTTP(said, r)
	if allowed := said.header.Get("Allow"); said.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allowed)
		return refusal(said.status, block.Invalid, r.Method+" is not for this path, but "+allowed+" is")
	}
	return refusal(http.StatusNotFound, block.NotFound, "there is no such path (see /docs)")
}

// verdict takes an answer that nobody is sent.
type verdict struct {
	header http.Header
	status int
}

func (v *verdict) Header() http.Header         { return v.header }
func (v *verdict) WriteHeader(status int)      { v.status = status }
func (v *verdict) Write(b []byte) (int, error) { return len(b), nil }

// answer gives each write its time.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController
	limit   time.Duration
	status  int
}

// Unwrap lets http.ResponseController find what is below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	a.status = status
	_ = a.control.SetWriteDeadline(time.Now().Add(a.limit)) // fails only where the connection is gone
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	_ = a.control.SetWriteDeadline(time.Now().Add(a.limit))
	return a.ResponseWriter.Write(b)
}

func (a *answer) problem(p *wire.Problem) {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // it has texts and numbers only
	}
	a.Header().Set("Content-Type", wire.ProblemType)
	a.WriteHeader(p.Status)
	_, _ = a.Write(append(text, '\n')) // nobody is left to tell
}
