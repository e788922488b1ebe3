package dockerconfig_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/dockerconfig"
)

const password = "s3cret:passw0rd"

var auth = base64.StdEncoding.EncodeToString([]byte("reader:" + password))

func TestRead(t *testing.T) {
	for name, test := range map[string]struct {
		entry string
		want  dockerconfig.Entry
	}{
		"user name and password": {
			`{"username": "reader", "password": "` + password + `"}`,
			dockerconfig.Entry{Username: "reader", Password: password},
		},
		"auth": {`{"auth": "` + auth + `"}`, dockerconfig.Entry{Username: "reader", Password: password}},
		"auth without padding": {
			`{"auth": "` + strings.TrimRight(auth, "=") + `"}`,
			dockerconfig.Entry{Username: "reader", Password: password},
		},
		"auth in a line of its own": {
			`{"auth": "` + auth + `\n"}`, dockerconfig.Entry{Username: "reader", Password: password},
		},
		"auth takes precedence": {
			`{"username": "x", "password": "y", "auth": "` + auth + `"}`,
			dockerconfig.Entry{Username: "reader", Password: password},
		},
		"a token": {
			`{"auth": "` + auth + `", "identitytoken": "t"}`,
			dockerconfig.Entry{Username: "reader", Password: password, IdentityToken: true},
		},
		"nothing": {`{}`, dockerconfig.Entry{}},
		"auth without a colon": {
			`{"auth": "cmVhZGVy"}`,
			dockerconfig.Entry{Unusable: `has an "auth" that is not the base64 of user:password`},
		},
		"auth that is no base64": {
			`{"auth": "` + password + `"}`,
			dockerconfig.Entry{Unusable: `has an "auth" that is not the base64 of user:password`},
		},
		"a string": {
			`"` + password + `"`, dockerconfig.Entry{Unusable: "is no JSON object with credentials"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			const second = `, "a.example.com": {"username": "a"}`
			test.want.Name = "r.example.com"
			want := []dockerconfig.Entry{{Name: "a.example.com", Username: "a"}, test.want}
			got, err := dockerconfig.Read([]byte(`{"auths": {"r.example.com": ` + test.entry + second + `}}`))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("got the error %v, want none; entries (-want +got):\n%s", err, diff)
			}
			got, err = dockerconfig.ReadLegacy([]byte(`{"r.example.com": ` + test.entry + second + `}`))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("in the form before: got the error %v, want none; entries (-want +got):\n%s", err, diff)
			}
		})
	}
}

// Content that cannot be read is an error that shows nothing of it.
func TestUnreadableContent(t *testing.T) {
	for name, test := range map[string]struct{ content, says string }{
		"no JSON":               {`{"auths": ` + password, "is no JSON"},
		"no list of registries": {`{"auths": ["` + password + `"]}`, "docker login"},
		"too long": {
			`{"auths": {"r.example.com": {"auth": "` + strings.Repeat("A", dockerconfig.MaxContent) + `"}}}`,
			"more than 131072 bytes",
		},
		"too many values": {
			`{"x": [` + strings.Repeat("0,", dockerconfig.MaxValues) + `0]}`, "more than 4096 values",
		},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := dockerconfig.Read([]byte(test.content))
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), password) {
				t.Errorf("got %v, %v, want an error with %q, and without the password", all, err, test.says)
			}
		})
	}
	if all, err := dockerconfig.Read([]byte(`{}`)); err != nil || len(all) != 0 {
		t.Errorf("without registries: got %v, %v, want no entries", all, err)
	}
}
