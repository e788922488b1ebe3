package registry

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// A refusedAddress is an address that is never connected to.
type refusedAddress struct {
	address netip.Addr
	kind    string
}

func (e *refusedAddress) Error() string {
	return fmt.Sprintf("%s is %s, to which Countersign never connects", e.address, e.kind)
}

// checkAddress is the dialer's last check: it sees what a name was resolved to.
func checkAddress(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("reading the address to connect to: %w", err)
	}
	return check(ap.Addr())
}

// checkHost refuses a URL that names such an address literally, which matters where a proxy would
// connect to it.
func checkHost(u *url.URL) error {
	address, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil //nolint:nilerr // a name; what it resolves to is checked when it is dialed
	}
	return check(address)
}

// check refuses addresses through which a server could make the operator talk to the inside of its
// machine or cloud. Loopback and private ranges are where self-hosted servers live, and allowed.
func check(address netip.Addr) error {
	a := embedded(address.Unmap().WithZone(""))
	refuse := func(kind string) error { return &refusedAddress{address: address, kind: kind} }
	switch {
	case a.IsUnspecified(), a.Is4() && a.As4()[0] == 0:
		return refuse("an unspecified address")
	case isMetadataService(a):
		return refuse("a cloud metadata service")
	case a.IsLinkLocalUnicast():
		return refuse("a link-local address, where cloud metadata services live")
	case a.IsMulticast(), a.Is4() && a.As4()[0] >= 240:
		return refuse("a multicast, broadcast or reserved address")
	}
	return nil
}

// isMetadataService knows the metadata services that are not on a link-local address: those of AWS
// and GCP over IPv6, of Alibaba, Oracle and Azure.
func isMetadataService(a netip.Addr) bool {
	switch a.String() {
	case "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16":
		return true
	}
	return false
}

// embedded returns the IPv4 address inside an IPv6 address of NAT64 (RFC 6052) or 6to4 (RFC 3056),
// and any other address as it is.
func embedded(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	b := a.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// A refusedRedirect is a redirect that is not followed.
type refusedRedirect struct{ to, why string }

func (e *refusedRedirect) Error() string {
	return fmt.Sprintf("redirected to %s, which is not followed: %s", e.to, e.why)
}

// checkRedirect follows a redirect only on the host it came from, so that neither credentials nor
// requests can be led elsewhere.
func checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	refuse := func(why string) error { return &refusedRedirect{to: place(req.URL), why: why} }
	switch {
	case len(via) > maxRedirects:
		return refuse("there were too many redirects before it")
	case req.URL.Scheme != from.Scheme:
		return refuse("it leads from " + from.Scheme + " to " + req.URL.Scheme)
	case hostPort(req.URL) != hostPort(from):
		return refuse("it leads to another host; if that is the right server, name it")
	}
	req.URL.Host = plainHost(req.URL)
	return nil
}

// hostPort is the host in lower case with its port, the scheme's own where the URL has none. Equal
// results are one host: ASCII letters alone are brought to lower case, because others, brought
// there, may look like the letters of a host that is not the one connected to.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	return net.JoinHostPort(strings.Map(lowerASCII, strings.TrimSuffix(u.Hostname(), ".")), port)
}

// plainHost is the host of a URL without the port that its scheme has by default (RFC 3986, section
// 6.2.3): what the Host header says. Virtual hosts of some servers are known by nothing else.
func plainHost(u *url.URL) string {
	if port := defaultPort(u.Scheme); port != "" && u.Port() == port {
		return strings.TrimSuffix(u.Host, ":"+port)
	}
	return u.Host
}

func defaultPort(scheme string) string {
	return map[string]string{"http": "80", "https": "443"}[scheme]
}

func lowerASCII(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r - 'A' + 'a'
	}
	return r
}

// place is what messages show of a URL: neither user nor query.
func place(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// redact is place for text that may not parse.
func redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(unreadable)"
	}
	return place(u)
}
