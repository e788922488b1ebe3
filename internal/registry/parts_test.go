package registry

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// Threat: requests to internal addresses.
func TestCheckAddress(t *testing.T) {
	tests := map[string]bool{ // address -> refused
		"127.0.0.1": false, "::1": false, "10.0.0.1": false, "192.168.1.1": false, "172.16.0.1": false,
		"fd12::1":   false,
		"192.0.2.1": false, "2001:db8::1": false, "100.64.0.1": false, "169.253.255.255": false, "fec0::1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::": false,

		"169.254.169.254": true, "169.254.0.1": true, "169.254.170.2": true, "::ffff:169.254.169.254": true,
		"fe80::1":      true,
		"fe80::1%eth0": true, "febf::1": true, "fd00:ec2::254": true, "fd20:ce::254": true, "100.100.100.200": true,
		"168.63.129.16": true, "192.0.0.192": true, "0.0.0.0": true, "0.1.2.3": true, "::": true,
		"::ffff:0.0.0.0": true,
		"224.0.0.1":      true, "239.1.2.3": true, "255.255.255.255": true, "240.0.0.1": true, "ff02::1": true,
		"64:ff9b::a9fe:a9fe": true, "2002:a9fe:a9fe::1": true,
	}
	for text, refused := range tests {
		err := checkIP(netip.MustParseAddr(text))
		if _, got := errors.AsType[*refusedAddress](err); got != refused {
			t.Errorf("%s: got refused %t (%v), want %t", text, got, err, refused)
		}
	}
}

// The dialer checks the address, because a name can resolve to any.
func TestDialerRefusesAddresses(t *testing.T) {
	conn, err := transport(nil, nil).DialContext(t.Context(), "tcp", "169.254.169.254:80")
	if err == nil {
		conn.Close()
	}
	if _, ok := errors.AsType[*refusedAddress](err); !ok {
		t.Errorf("got %v, want a refusal", err)
	}
}

// With a proxy the client does not dial the address, so a literal address is checked before.
func TestProxyIsNotAskedForRefusedAddresses(t *testing.T) {
	proxy := servePlain(t, answer(http.StatusOK, "application/json", `{}`))
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"169.254.169.254", "192.0.2.1"} {
		c := newClient(t, Config{Server: "http://" + host, PlainHTTP: true})
		c.http.Transport.(*http.Transport).Proxy = http.ProxyURL(through)
		_, err := c.Get(t.Context(), repository, file, 100)
		if host == "192.0.2.1" {
			if err != nil {
				t.Errorf("%s through the proxy: got %v", host, err)
			}
			continue
		}
		wantFault(t, err, v1alpha1.ReasonAddressRefused, host)
	}
	if n := len(proxy.seen()); n != 1 {
		t.Errorf("got %d requests at the proxy, want 1", n)
	}
}

func TestChallenges(t *testing.T) {
	tests := map[string]struct {
		lines []string
		want  []challenge
	}{
		"none": {nil, nil},
		"bearer": {[]string{`Bearer realm="https://auth.example.com/token",service="a,b",scope="repository:x:pull"`},
			[]challenge{
				{
					"bearer",
					map[string]string{
						"realm": "https://auth.example.com/token", "service": "a,b", "scope": "repository:x:pull",
					},
				},
			}},
		"case, spaces, tokens": {
			[]string{` BEARER  Realm = "x" , SERVICE=y`},
			[]challenge{{"bearer", map[string]string{"realm": "x", "service": "y"}}},
		},
		"two in a line": {[]string{`Basic realm="a", Bearer realm="b"`}, []challenge{
			{"basic", map[string]string{"realm": "a"}}, {"bearer", map[string]string{"realm": "b"}},
		}},
		"two lines": {[]string{`Negotiate`, `Basic realm="a"`}, []challenge{
			{"negotiate", map[string]string{}}, {"basic", map[string]string{"realm": "a"}},
		}},
		"escaped quote": {
			[]string{`Basic realm="a\"b\\"`}, []challenge{{"basic", map[string]string{"realm": `a"b\`}}},
		},
		"unfinished quote": {
			[]string{`Basic realm="a`, `Bearer realm="b"`},
			[]challenge{{"basic", map[string]string{}}, {"bearer", map[string]string{"realm": "b"}}},
		},
		"backslash at end": {[]string{`Basic realm="a\`}, []challenge{{"basic", map[string]string{}}}},
		"first of two counts": {
			[]string{`Bearer realm="a",realm="b"`}, []challenge{{"bearer", map[string]string{"realm": "a"}}},
		},
		"rubbish": {[]string{`="x"`, `"Bearer realm=x"`, ``}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := challenges(http.Header{"Www-Authenticate": tt.lines})
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(challenge{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example.com/token",service="a"`)
	f.Add(`Basic realm="a", Bearer realm="b\"`)
	f.Add(`a b c d e f g h i j k l m n o p q r s t u v`)
	f.Fuzz(func(t *testing.T, line string) {
		got := challenges(http.Header{"Www-Authenticate": {line}})
		if len(got) > maxChallenges {
			t.Errorf("got %d challenges", len(got))
		}
		for _, c := range got {
			if c.scheme == "" {
				t.Error("got a challenge without a scheme")
			}
		}
	})
}
