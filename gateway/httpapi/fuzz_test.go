package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"sluice/gateway/httpapi/apitest"
	"sluice/gateway/spec"
	"sluice/gateway/wire"
)

// FuzzSettings sends any body as a change of settings: it is carried out as the
// same patch of the JSON document says, or refused as the client's mistake.
func FuzzSettings(f *testing.F) {
	for _, body := range []string{
		`{}`, `null`, `{"throttle":{"read_iops":1,"burst":null}}`, `{"throttle":null,"faults":["a"]}`, `{"on_error":{"limit":"1h","policy":"error"}}`,
		`{"throttle":{"read_bytes":"10M"}}`, `{"slow_request":"1s"}`, `{"faults":null}`, `[]`, `{"x":{}}`, `{"throttle":{"read_iops":9223372036854775807}}`,
	} {
		f.Add(body)
	}
	fake := apitest.New()
	srv := New(Config{Gateway: fake})
	f.Cleanup(srv.Close)
	if _, err := fake.Add(f.Context(), spec.Spec{Name: "d", URL: "/x"}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if _, err := fake.Change(t.Context(), "d", full); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		srv.http.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodPatch, "/v1/exports/d/settings", strings.NewReader(body)))
		st, err := fake.Show("d")
		if err != nil {
			t.Fatal(err)
		}
		if w.Code == http.StatusOK {
			want, err := settingsPatch(body).apply(full)
			if err != nil || !reflect.DeepEqual(want, st.Spec.Settings) {
				t.Errorf("%s made %+v, want %+v, %v", body, st.Spec.Settings, want, err)
			}
			return
		}
		var p wire.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code/100 != 4 || p.Kind != "invalid" || !reflect.DeepEqual(full, st.Spec.Settings) {
			t.Errorf("%s: %d %s, settings %+v", body, w.Code, w.Body, st.Spec.Settings)
		}
	})
}
