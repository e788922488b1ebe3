package imageref

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// namesHost reports whether the first of several segments is a registry host and not a part of a
// path on docker.io. Every container runtime follows this rule.
func namesHost(first string) bool {
	return first == "localhost" || strings.ContainsAny(first, ".:")
}

// normaliseFirst returns the canonical form of the first of several segments. It returns a segment
// that is not a host unchanged.
func normaliseFirst(first string) (string, error) {
	if namesHost(first) {
		return normaliseHost(first)
	}
	if strings.ToLower(first) != first {
		// A runtime reads it as a host because of its capitals; in lower case it would be a path on
		// docker.io.
		return "", fmt.Errorf(
			"%.64q has capitals and neither '.' nor port: a registry host needs one of them, a repository is in "+
				"lower case", first)
	}
	return first, nil
}

// normaliseHost returns the canonical form of a registry host: lower case, no default port, no
// leading zero in a port, the canonical form of an IPv6 address, and docker.io for its other names.
// The host of a pattern may contain "*".
func normaliseHost(s string) (string, error) {
	host, port, err := splitPort(strings.ToLower(s))
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(host, "[") {
		addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
		switch {
		case err != nil || !strings.HasSuffix(host, "]") || !addr.Is6() || addr.Zone() != "":
			return "", fmt.Errorf("%.64q is not an IPv6 address in brackets", s)
		case addr.Is4In6():
			return "", fmt.Errorf("%.64q is an IPv4 address in IPv6 form; write the IPv4 address", s)
		}
		host = "[" + addr.String() + "]"
	}
	if port == "443" && namesHost(host) {
		port = ""
	}
	if port != "" {
		return host + ":" + port, nil
	}
	switch host {
	case dockerIndex, "registry-1.docker.io", "registry.hub.docker.com": // other names of the same registry
		host = dockerHost
	}
	return host, nil
}

// splitPort splits a host and its port. It removes leading zeros of the port. A missing port is
// empty.
func splitPort(s string) (host, port string, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i < strings.LastIndexByte(s, ']') {
		return s, "", nil
	}
	digits := s[i+1:]
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || len(digits) > 5 {
		return "", "", errors.New("the port of the registry host is not a number from 1 to 65535")
	}
	return s[:i], strconv.FormatUint(n, 10), nil
}
