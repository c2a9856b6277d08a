"""Name lists and fillers for slots, from Faker (MIT): what to put into templates, and which words the tagger is told
are names."""

from __future__ import annotations

import datetime
import importlib
import random
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import resources

from faker import Faker
from faker.providers.job.en_US import Provider as Jobs
from faker.providers.lorem.en_US import Provider as Lorem

from fulmen_raise_pii.tagger.word_features import LISTS, word_key

#: Locales whose names are written in Latin or Greek letters.
LOCALES = (
    "en_US", "en_GB", "en_IN", "fr_FR", "fr_CA", "de_DE", "de_AT", "es_ES", "es_MX", "it_IT", "pt_BR", "pt_PT",
    "nl_NL", "nl_BE", "sv_SE", "no_NO", "da_DK", "fi_FI", "pl_PL", "cs_CZ", "sk_SK", "hu_HU", "hr_HR", "sl_SI",
    "ro_RO", "tr_TR", "et_EE", "lt_LT", "lv_LV", "el_GR", "vi_VN", "id_ID", "is_IS",
)  # fmt: skip

#: Faker keeps the cities of this one in a set, so that what it draws would differ from process to process.
_ITALIAN = LOCALES.index("it_IT")

_MONTHS = """january february march april may june july august september october november december
jan feb mar apr jun jul aug sep sept oct nov dec"""
_DAYS = "monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thurs fri sat sun"
_STREETS = """street st road rd avenue ave lane ln drive dr court ct square sq place pl boulevard blvd way terrace
highway hwy parkway crescent close grove hill row walk alley circle plaza rue via avenida rua calle strasse straße
platz weg gasse allee chemin place quai cours corso viale piazza largo travessa utca tér út gade vej vænget gata
gatan vägen väg katu tie ulica ul trg cesta náměstí laan straat plein dreef weg steenweg suite apt apartment box
po psc apo fpo dpo floor unit building house corner"""
_COMPANY = """inc ltd llc llp plc corp corporation company co group holdings bank partners associates systems
technologies solutions insurance labs media university institute ventures capital sons gmbh ag sa spa srl bv ab oy
as foundation agency consulting services industries international network networks"""
_MAKERS = ("micro", "data", "bio", "cyber", "net", "info", "geo", "med", "agri", "fin", "eco", "open", "smart", "true")
_ENDS = ("ly", "ify", "ix", "era", "ent", "bilt", "wise", "soft", "set", "hub", "lab", "scape", "base", "ware", "ia")
_FORMS = (
    "Inc", "Corporation", "Group", "Systems", "Inc.", "LLC", "Technologies", "Insurance", "Bank", "Partners", "Labs",
    "Company", "Media", "University",
)  # fmt: skip
_CODES = ("??-####", "#######", "??######", "?#?#-####", "INC#######", "###-#######", "??##??##")
_LICENSES = ("#########", "?#########", "########", "?############", "#######", "####-##-####")


def nationalities() -> list[str]:
    """Return adjectives and nouns of nationality, religion and the like, as the plugin lists them."""
    listed = (resources.files("fulmen_raise_pii") / "tagger/training/nationalities.txt").read_text("utf-8")
    return [line for line in listed.splitlines() if line and not line.startswith("#")]


def gazetteer() -> dict[int, int]:
    """Return word key -> on which of `LISTS` a word is."""
    listed: dict[int, int] = {}
    for name, values in _listed():
        bit = 1 << LISTS.index(name)
        for value in values:
            for word in re.findall(r"[^\W\d_]+", value):
                if len(word) > 1:
                    key = word_key(word)
                    listed[key] = listed.get(key, 0) | bit
    return listed


def _listed() -> Iterator[tuple[str, Iterable[str]]]:
    for locale in LOCALES:
        person = _provider("person", locale)
        for attribute in vars(person):
            if attribute.startswith("first_name"):
                yield "given", _values(person, attribute)
            elif attribute.startswith("last_name"):
                yield "surname", _values(person, attribute)
        if locale != "it_IT":  # sixteen thousand hamlets, among them every other common word
            for attribute in ("cities", "real_city_names", "localities"):
                yield "city", _values(_provider("address", locale), attribute)
        for attribute in ("streets", "street_names"):
            yield "street", _values(_provider("address", locale), attribute)
    yield "country", _values(_provider("address", "en_US"), "countries")
    yield "nationality", nationalities()
    yield "job", Jobs.jobs
    yield "company", _COMPANY.split()
    yield "street", _STREETS.split()
    yield "month", _MONTHS.split()
    yield "day", _DAYS.split()
    yield "common", Lorem.word_list


def _provider(kind: str, locale: str) -> type:
    try:
        found: type = importlib.import_module(f"faker.providers.{kind}.{locale}").Provider
    except ImportError:
        found = importlib.import_module(f"faker.providers.{kind}").Provider
    return found


def _values(provider: type, attribute: str) -> list[str]:
    values = getattr(provider, attribute, ())
    if callable(values):
        return []
    return [value for value in values if isinstance(value, str) and "{{" not in value]


class Fillers:
    """Values for the slots of templates, drawn with a seed from many countries."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._fakers = [Faker(locale) for locale in LOCALES]
        for place, faker in enumerate(self._fakers):
            faker.seed_instance(seed * 1000 + place)
        self._english = self._fakers[0]  # but for days and months, which it draws from what has been until now
        self._italian = sorted(_provider("address", "it_IT").cities)  # type: ignore[attr-defined]
        self._nationalities = nationalities()
        self.slots: dict[str, Callable[[], tuple[str, str]]] = {
            "person": lambda: ("person", self._person()),
            "name": lambda: ("person", self._person()),
            "name_male": lambda: ("person", self._person()),
            "name_female": lambda: ("person", self._person()),
            **dict.fromkeys(_GIVEN, self._given),
            **dict.fromkeys(("last_name", "last_name_male", "last_name_female"), self._surname),
            "address": lambda: ("address", self._address()),
            "street_name": lambda: ("address", self._street()),
            "building_number": lambda: ("address", self._number()),
            "secondary_address": lambda: ("address", self._secondary()),
            "postcode": lambda: ("address", self._faker().postcode()),
            "zipcode": lambda: ("address", self._faker().postcode()),
            "city": lambda: ("location", self._city()),
            "country": lambda: ("location", self._english.country()),
            "state": lambda: ("location", self._english.state()),
            "state_abbr": lambda: ("location", self._english.state_abbr()),
            "organization": lambda: ("organization", self._organization()),
            "nationality": lambda: ("nationality", self.rng.choice(self._nationalities)),
            "nation_woman": lambda: ("nationality", self.rng.choice(self._nationalities)),
            "nation_plural": lambda: ("nationality", self.rng.choice(self._nationalities) + "s"),
            "job": lambda: ("title", self._english.job()),
            **dict.fromkeys(("prefix", "prefix_male", "prefix_female"), self._title),
            "age": lambda: ("age", str(self.rng.randint(1, 99))),
            "year": lambda: ("date", str(self.rng.randint(1950, 2024))),
            "day_of_week": lambda: ("date", self.rng.choice(_DAYS.split()[:7]).capitalize()),
            "month": lambda: ("date", self.rng.choice(_MONTHS.split()[:12]).capitalize()),
            "date": lambda: ("date", self._day()),
            "date_of_birth": lambda: ("date", self._date()),
            "date_time": lambda: ("date", self._moment()),
            "phone_number": lambda: ("phone", self._faker().phone_number()),
            "us_driver_license": lambda: ("driver_license", self._license()),
            "credit_card_number": lambda: ("", self._english.credit_card_number()),
            "email": lambda: ("", self._faker().email()),
            "iban": lambda: ("", self._faker().iban()),
            "ip_address": lambda: ("", self._english.ipv4()),
            "ssn": lambda: ("", self._english.ssn()),
            "url": lambda: ("", self._faker().url()),
            "number": lambda: ("", str(self.rng.randint(2, self.rng.choice((12, 100, 100_000))))),
            "money": lambda: ("", self._money()),
            "time": lambda: ("", self._time()),
            "code": lambda: ("", str(self._english.bothify(self.rng.choice(_CODES))).upper()),
        }

    def _faker(self) -> Faker:
        return self.rng.choice(self._fakers) if self.rng.random() < 0.8 else self._english

    def _given(self) -> tuple[str, str]:
        return "person", self._faker().first_name()

    def _surname(self) -> tuple[str, str]:
        return "person", self._faker().last_name()

    def _title(self) -> tuple[str, str]:
        return "title", self.rng.choice(("Mr.", "Mrs.", "Ms.", "Miss", "Dr.", "Mr", "Mrs", "Ms", "Dr", "Prof."))

    def _person(self) -> str:
        faker = self._faker()
        middle = f"{self.rng.choice('ABCDEFGHIJKLMNOPRSTUVWZ')}{self.rng.choice(('.', ''))} "
        return f"{faker.first_name()} {middle if self.rng.random() < 0.3 else ''}{faker.last_name()}"

    def _city(self) -> str:
        faker = self._faker()
        city: str = self.rng.choice(self._italian) if faker is self._fakers[_ITALIAN] else faker.city()
        return city.upper() if self.rng.random() < 0.15 else city

    def _number(self) -> str:
        return str(self.rng.randint(1, 9999)) if self.rng.random() < 0.8 else f"{self.rng.randint(0, 99):02}"

    def _street(self) -> str:
        faker = self._faker()
        name: str = faker.street_name()
        return f"{name} {self.rng.randint(1, 250)}" if self.rng.random() < 0.6 else name

    def _secondary(self) -> str:
        return f"{self.rng.choice(('Apt.', 'Suite'))} {self.rng.randint(0, 999):03}"

    def _address(self) -> str:
        draw = self.rng.random()
        if draw < 0.05:
            box = f"PSC {self.rng.randint(1, 9999)}, Box {self.rng.randint(1, 9999)}"
            return f"{box}\nAPO AP {self.rng.randint(1, 99999):05}"
        if draw < 0.15:
            return str(self.rng.choice([one for one in self._fakers if one is not self._fakers[_ITALIAN]]).address())
        first, second, city = f"{self._number()} {self._street()}", self._secondary(), self._city()
        country, code = self._english.country(), self._faker().postcode()
        state = self._english.state_abbr()
        return self.rng.choice(
            (
                f"{first}\n {second}\n {city}\n {country} {code}",
                f"{first} {second}\n {city}\n {country} {code}",
                f"{first} {second}, {city}, {country} {code}",
                f"{first} {second} {city} {state}",
                f"{first} {second}\n{city}\n, {state}\n {country} {code}",
                f"{first}\n{city}\n, {state}\n {code}",
                f"{first}, {city}, {state} {code}",
                f"{first}, {city}",
                first,
            )
        )

    def _organization(self) -> str:
        draw = self.rng.random()
        if draw < 0.45:
            company: str = self._faker().company()
            return company
        words = [self.rng.choice(Lorem.word_list) for _ in range(self.rng.randint(1, 3))]
        if draw < 0.6:
            words = [self.rng.choice(_MAKERS) + self.rng.choice((*_ENDS, *words))]
        elif draw < 0.75:
            words[-1] += self.rng.choice(_ENDS)
        if self.rng.random() < 0.3:
            words.append(self.rng.choice(_FORMS))
        return " ".join(word.capitalize() for word in words)

    def _date(self) -> str:
        date = datetime.date(1930, 1, 1) + datetime.timedelta(days=self.rng.randrange(34_000))
        numeric = f"{date.month}/{date.day}/{date.year}"
        return self.rng.choice((numeric, date.isoformat(), f"{date:%d %B %Y}", f"{date:%B} {date.day}, {date.year}"))

    def _day(self) -> str:
        day = datetime.date(1950, 1, 1) + datetime.timedelta(days=self.rng.randrange(28_000))
        forms = (
            f"{day.day} {day:%B %Y}",
            f"{day:%B} {day.day}, {day.year}",
            f"{day.month}/{day.day}/{day.year}",
            day.isoformat(),
            f"{day:%d.%m.%Y}",
            f"{day:%B} {day.day}",
            f"{day.day} {day:%B}",
            f"{day:%d/%m/%y}",
            f"{day:%b} {day.day}, {day.year}",
        )
        return self.rng.choice(forms)

    def _money(self) -> str:
        amount = self.rng.choice(
            (
                f"{self.rng.randint(1, 9999)}",
                f"{self.rng.randint(1, 999)}.{self.rng.randint(0, 99):02}",
                f"{self.rng.randint(1, 999)},{self.rng.randint(0, 999):03}",
            )
        )
        return self.rng.choice(("${}", "€{}", "£{}", "{} dollars", "{} EUR", "USD {}")).format(amount)

    def _time(self) -> str:
        hour, minute = self.rng.randint(0, 23), self.rng.randint(0, 59)
        half = self.rng.choice(("am", "pm"))
        twelve = hour % 12 + 1
        exact = f"{twelve}:{minute:02}"
        return self.rng.choice(
            (f"{hour}:{minute:02}", f"{exact} {half}", f"{exact} {half.upper()}", f"{twelve} {half}", f"{twelve}{half}")
        )

    def _moment(self) -> str:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=self.rng.randrange(1_700_000_000))
        return moment.isoformat(sep=" ")

    def _license(self) -> str:
        return str(self._english.bothify(self.rng.choice(_LICENSES))).upper()


_GIVEN = ("first_name", "first_name_male", "first_name_female", "first_name_nonbinary")
