// Package controllers reconciles ImagePolicy and TrustRoot into the store that admission decides from, on every
// replica, and writes their status and events, on the leader. It also keeps the webhook configurations as they must
// be. Nothing here decides about an image.
package controllers
