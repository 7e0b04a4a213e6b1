package report

import (
	"encoding/json"
	"fmt"
	"io"
)

// JSON writes the report as results.json: everything that was sampled, from which all tables can be made again.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// Brief tells a sample on one line, for a run's progress.
func (s Sample) Brief(u Unit) string {
	switch {
	case s.Error != "":
		return "failed: " + s.Error
	case u == PerGiB:
		return fmt.Sprintf("%8s MiB/s  %s s/GiB", rateText(s.Rate(u), u), costText(s.Cost(u), u))
	}
	return fmt.Sprintf("%8s/s      %s us/op", rateText(s.Rate(u), u), costText(s.Cost(u), u))
}
