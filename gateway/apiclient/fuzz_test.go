package apiclient

import (
	"bufio"
	"strings"
	"testing"
)

// FuzzEvents reads any stream to its end.
func FuzzEvents(f *testing.F) {
	for _, text := range []string{
		": events follow\n\nid: 1\nevent: added\ndata: {\"seq\":1,\"kind\":\"added\"}\n\n", "data:{\ndata: }\n\n", "data: x\n\n", "\n\n\n", "data: {}", "id: 1\r\ndata: {}\r\n\r\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := bufio.NewScanner(strings.NewReader(text))
		lines.Buffer(nil, maxEvent)
		for n := 0; ; n++ {
			if _, err := nextEvent(lines); err != nil {
				return
			}
			if n > len(text) {
				t.Fatal("there are more events than bytes")
			}
		}
	})
}
