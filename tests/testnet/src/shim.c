/* Preloaded into relays by LD_PRELOAD. It does two things for which tor has no option:
 *
 * 1. tor ignores OutboundBindAddress for loopback targets, so every relay would leave from 127.0.0.1. This library binds each TCP
 *    connection to 127/8 before it connects: to TESTNET_BIND_OR towards relays, so that they see each other's addresses, and to TESTNET_BIND
 *    towards anything else. TESTNET_NODELAY turns Nagle's algorithm off. On loopback, together with delayed ACKs, it stalls
 *    connections for 40 ms at random.
 *
 * 2. tor makes a new RSA-2048 link key at every start. That takes 0.15 to 0.75 s of CPU, nine tenths of the start of fifteen relays. With
 *    TESTNET_KEYS the library makes a long key once and keeps it in that folder. Relays that share a link key still have different
 *    identity keys, which are short and not shared.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

int socket(int domain, int type, int protocol) {
  static int (*next)(int, int, int);
  if (!next) next = dlsym(RTLD_NEXT, "socket");
  int fd = next(domain, type, protocol), one = 1;
  if (fd >= 0 && domain == AF_INET && (type & 0xf) == SOCK_STREAM && getenv("TESTNET_NODELAY"))
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

static int is_tcp(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
  static int (*next)(int, const struct sockaddr *, socklen_t);
  if (!next) next = dlsym(RTLD_NEXT, "connect");
  if (address && address->sa_family == AF_INET && is_tcp(fd)) {
    const struct sockaddr_in *to = (const void *)address;
    int port = ntohs(to->sin_port), one = 1;
    int to_relay = port == TESTNET_OR_PORT || port == TESTNET_DIR_PORT;
    const char *bind_to = getenv(to_relay ? "TESTNET_BIND_OR" : "TESTNET_BIND");
    if (bind_to && ntohl(to->sin_addr.s_addr) >> 24 == 127) {
      struct sockaddr_in from = {.sin_family = AF_INET};
      inet_pton(AF_INET, bind_to, &from.sin_addr);
      setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
      bind(fd, (void *)&from, sizeof from);
    }
  }
  return next(fd, address, length);
}

/* Declarations of OpenSSL: its headers are not on every machine, but the library is wherever tor is. */
typedef struct rsa_st RSA;
typedef struct bignum_st BIGNUM;
typedef struct bio_st BIO;
extern void ERR_clear_error(void);
extern BIO *BIO_new_file(const char *, const char *);
extern int BIO_free(BIO *);
extern BIGNUM *BN_dup(const BIGNUM *);
extern RSA *PEM_read_bio_RSAPrivateKey(BIO *, RSA **, void *, void *);
extern int PEM_write_bio_RSAPrivateKey(BIO *, RSA *, const void *, unsigned char *, int, void *, void *);
extern void RSA_free(RSA *);
extern void RSA_get0_key(const RSA *, const BIGNUM **, const BIGNUM **, const BIGNUM **);
extern void RSA_get0_factors(const RSA *, const BIGNUM **, const BIGNUM **);
extern void RSA_get0_crt_params(const RSA *, const BIGNUM **, const BIGNUM **, const BIGNUM **);
extern int RSA_set0_key(RSA *, BIGNUM *, BIGNUM *, BIGNUM *);
extern int RSA_set0_factors(RSA *, BIGNUM *, BIGNUM *);
extern int RSA_set0_crt_params(RSA *, BIGNUM *, BIGNUM *, BIGNUM *);

static int load(RSA *into, const char *path) {
  BIO *file = BIO_new_file(path, "r");
  RSA *key = file ? PEM_read_bio_RSAPrivateKey(file, NULL, NULL, NULL) : NULL;
  if (file) BIO_free(file);
  if (!key) return 0;
  const BIGNUM *n, *e, *d, *p, *q, *dp, *dq, *qi;
  RSA_get0_key(key, &n, &e, &d);
  RSA_get0_factors(key, &p, &q);
  RSA_get0_crt_params(key, &dp, &dq, &qi);
  int done = RSA_set0_key(into, BN_dup(n), BN_dup(e), BN_dup(d)) && RSA_set0_factors(into, BN_dup(p), BN_dup(q)) &&
             RSA_set0_crt_params(into, BN_dup(dp), BN_dup(dq), BN_dup(qi));
  RSA_free(key);
  return done;
}

static void save(RSA *key, const char *path) {
  char made[4096];
  snprintf(made, sizeof made, "%s.%d", path, (int)getpid());
  BIO *file = BIO_new_file(made, "w");
  if (!file) return;
  int done = PEM_write_bio_RSAPrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
  BIO_free(file);
  if (!done || rename(made, path)) unlink(made);
}

int RSA_generate_key_ex(RSA *key, int bits, BIGNUM *exponent, void *progress) {
  static int (*next)(RSA *, int, BIGNUM *, void *);
  if (!next) next = dlsym(RTLD_NEXT, "RSA_generate_key_ex");
  const char *folder = getenv("TESTNET_KEYS");
  if (!folder || bits < 2048) return next(key, bits, exponent, progress);
  char path[4000];
  snprintf(path, sizeof path, "%s/rsa-%d.pem", folder, bits);
  if (load(key, path)) return 1;
  ERR_clear_error(); /* the missing file is no error that tor should find in its queue and log */
  int made = next(key, bits, exponent, progress);
  if (made) save(key, path);
  return made;
}
