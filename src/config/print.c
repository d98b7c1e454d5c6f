/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What people see of the table: `tbfs config`, --help, and the manual's section.
 */
#include "base/cleanup.h"
#include "config/table.h"

#include <string.h>

/* Control characters would let a value forge lines of the output. */
static void
print_text(FILE *out, const char *text)
{
	for (; *text != '\0'; text++)
		(void)fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
}

static void
print_origin(const struct config_origin *origin, FILE *out)
{
	switch (origin->source) {
	case CONFIG_DEFAULT:
		(void)fputs("\t# default", out);
		break;
	case CONFIG_FILE:
		(void)fprintf(out, "\t# %s", origin->where);
		break;
	case CONFIG_SERVICE:
	case CONFIG_ENV:
		(void)fprintf(out, "\t# environment: %s", origin->where);
		break;
	case CONFIG_OPTION:
		(void)fprintf(out, "\t# option: %s", origin->where);
		break;
	}
	(void)fputc('\n', out);
}

void
config_print(const struct config *cfg, FILE *out)
{
	size_t i;

	if (cfg->mountpoint != NULL)
		(void)fprintf(out, "# mountpoint: %s\n", cfg->mountpoint);
	(void)fprintf(out, "# file: %s\n", cfg->config_file != NULL ? cfg->config_file : "none");
	for (i = 0; i < config_option_count; i++) {
		const struct config_option *opt = &config_options[i];
		const struct config_origin *origin = &cfg->origin[i];

		if ((opt->flags & OPTION_HIDDEN) && origin->text == NULL)
			continue;
		(void)fprintf(out, "%s = ", opt->key);
		if (origin->text != NULL)
			print_text(out, opt->flags & OPTION_SECRET ? "(set)" : origin->text);
		print_origin(origin, out);
	}
}

static const char *
shown_default(const struct config_option *opt)
{
	if (opt->shown != NULL)
		return opt->shown;
	return opt->def != NULL ? opt->def : "none";
}

void
config_print_help(FILE *out)
{
	size_t i;

	for (i = 0; i < config_option_count; i++) {
		const struct config_option *opt = &config_options[i];

		if (!(opt->flags & OPTION_HIDDEN))
			(void)fprintf(out, "  %-20s %s [%s]\n", opt->key, opt->help, shown_default(opt));
	}
}

/* A line of mdoc text: a dot or quote at its beginning and every backslash mean themselves. */
static void
man_line(FILE *out, const char *text)
{
	if (*text == '.' || *text == '\'')
		(void)fputs("\\&", out);
	for (; *text != '\0'; text++)
		(void)(*text == '\\' ? fputs("\\e", out) : fputc(*text, out));
	(void)fputc('\n', out);
}

void
config_print_man(FILE *out)
{
	size_t i;

	for (i = 0; i < config_option_count; i++) {
		const struct config_option *opt = &config_options[i];
		CLEANUP_STRBUF struct strbuf text = STRBUF_INIT;
		char env[128];

		if (opt->flags & OPTION_HIDDEN)
			continue;
		(void)fprintf(out, ".It Cm %s\n", opt->key);
		man_line(out, opt->help);
		strbuf_addstr(&text, "Allowed: ");
		config_value_allowed(opt, &text);
		strbuf_addch(&text, '.');
		man_line(out, text.data != NULL ? text.data : "");
		strbuf_reset(&text);
		strbuf_addf(&text, "Default: %s.", shown_default(opt));
		man_line(out, text.data != NULL ? text.data : "");
		config_env_name(opt->key, env, sizeof(env));
		(void)fprintf(out, "Environment:\n.Ev %s", env);
		if (opt->env != NULL)
			(void)fprintf(out, " , %s", opt->env);
		if (opt->env_s3 != NULL)
			(void)fprintf(out, " , %s", opt->env_s3);
		if (opt->env_minio != NULL)
			(void)fprintf(out, " , %s", opt->env_minio);
		(void)fputs(" .\n", out);
		if (opt->flags & OPTION_RELOAD)
			(void)fputs("Taken over on SIGHUP.\n", out);
	}
}
