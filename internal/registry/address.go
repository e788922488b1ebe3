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

// refusedAddress is the error of an address that the client never connects to.
type refusedAddress struct {
	address netip.Addr
	kind    string
}

func (e *refusedAddress) Error() string {
	return fmt.Sprintf("%s is %s, to which Countersign never connects", e.address, e.kind)
}

// checkAddress is the Control function of the dialer. It checks the address to which a name
// resolved.
func checkAddress(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("reading the address to connect to: %w", err)
	}
	return checkIP(ap.Addr())
}

// checkHost refuses a URL with such a literal address. A proxy could connect to it.
func checkHost(u *url.URL) error {
	address, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil //nolint:nilerr // a name; checkAddress checks its address
	}
	return checkIP(address)
}

// checkIP refuses internal addresses of a machine or a cloud, to which a server could redirect the
// operator. Loopback and private ranges are allowed: self-hosted servers use them.
func checkIP(address netip.Addr) error {
	a := embeddedIPv4(address.Unmap().WithZone(""))
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

// isMetadataService reports whether an address is a metadata service outside of the link-local
// range: AWS and GCP over IPv6, Alibaba, Oracle and Azure.
func isMetadataService(a netip.Addr) bool {
	switch a.String() {
	case "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16":
		return true
	}
	return false
}

// embeddedIPv4 returns the IPv4 address inside an IPv6 address of NAT64 (RFC 6052) or 6to4 (RFC
// 3056). It returns any other address unchanged.
func embeddedIPv4(a netip.Addr) netip.Addr {
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

// refusedRedirect is the error of a redirect that the client does not follow.
type refusedRedirect struct{ to, why string }

func (e *refusedRedirect) Error() string {
	return fmt.Sprintf("redirected to %s, which is not followed: %s", e.to, e.why)
}

// checkRedirect follows redirects only within one host, so that a server cannot direct credentials
// or requests to another host.
func checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	refuse := func(why string) error { return &refusedRedirect{to: shownURL(req.URL), why: why} }
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

// returnRedirect is checkRedirect, but returns the response that redirects to another host.
func returnRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	if req.URL.Scheme != from.Scheme || hostPort(req.URL) != hostPort(from) {
		return http.ErrUseLastResponse
	}
	return checkRedirect(req, via)
}

// hostPort returns the host in lower case with its port, or the scheme's default port. Equal
// results mean one host. It lowers only ASCII letters: lowering others could yield the name of a
// different host.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	return net.JoinHostPort(strings.Map(lowerASCII, strings.TrimSuffix(u.Hostname(), ".")), port)
}

// plainHost returns the host of a URL without the scheme's default port (RFC 3986, section 6.2.3),
// as the Host header has it. Some servers match virtual hosts only in this form.
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

// shownURL returns a URL for messages, without user and query.
func shownURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// redact is shownURL for text that may not parse.
func redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(unreadable)"
	}
	return shownURL(u)
}
